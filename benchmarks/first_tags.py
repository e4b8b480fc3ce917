"""Write data of tagged words, with only the first tag of each word if it has several, such as "B-person,B-group".

    python benchmarks/first_tags.py DATA_FOLDER/wnut17 OUT_FOLDER/wnut17

The test rows of wnut17 contain such words, because annotators disagreed. edgetune rejects them, because entities cannot
overlap. The number of changed words goes to stderr.
"""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(folder: Path, out: Path) -> None:
    """Write the rows of each file in FOLDER to OUT."""
    out.mkdir(parents=True)
    for path in sorted(folder.glob("*.jsonl")):
        changed, lines = 0, []
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            first = [tag.split(",")[0] for tag in row["tags"]]
            changed += sum(one != other for one, other in zip(first, row["tags"], strict=True))
            lines.append(json.dumps(row | {"tags": first}, ensure_ascii=False) + "\n")
        (out / path.name).write_text("".join(lines), encoding="utf-8")
        click.echo(f"{path.name}: {len(lines):,} rows, {changed:,} words with several tags", err=True)


if __name__ == "__main__":
    main()
