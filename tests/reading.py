"""The rows of a file, as `train` reads them and as `score` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from edgetune.data import sources
from edgetune.data.labelled import read_labelled
from edgetune.data.text_files import Reading
from edgetune.scoring import inputs
from edgetune.scoring.shards import Rows
from edgetune_runtime.kinds.single_label import SINGLE_LABEL


def labelled(path: Path) -> list[tuple[str, str]]:
    """Texts and labels, as `train` reads them if a text has one label."""
    read = read_labelled(str(path), note=lambda _: None, kind=SINGLE_LABEL)
    return [(row.text, str(row.target)) for row in read.rows]


def read_shards(
    paths: list[Path],
    shard_rows: int = 3,
    text_column: str = "text",
    reading: Reading = Reading(),  # noqa: B008
    note: Callable[[str], object] = lambda _: None,
) -> tuple[pa.Schema, list[Rows]]:
    """The schema and the rows of files, as `score` reads them, shard by shard."""
    columns, cut = inputs.scan(sources.find(paths, note), reading, [text_column], shard_rows, lambda number: None, note)
    found: list[Rows] = []
    if cut:
        reader = inputs.reader(cut[0], columns, [text_column])
        found = [rows for one in cut for rows in reader.read(one)]
        reader.close()
    assert sum(one.rows for one in cut) == sum(rows.table.num_rows for rows in found)
    assert all(one.rows <= shard_rows for one in cut)
    return columns, found


def scored(path: Path) -> list[tuple[str | None, str]]:
    """Texts (`None` for bad rows) and labels, as `score` reads them."""
    _, found = read_shards([path], shard_rows=2)
    texts = [text for rows in found for text in rows.texts]
    return list(
        zip(texts, (str(label) for rows in found for label in rows.table.column("label").to_pylist()), strict=True)
    )
