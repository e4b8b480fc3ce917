"""Rows as other programs write them: every way in which a table comes to a file, by name."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from hypothesis import strategies as st

# Whole characters; a label is not empty, and does not end in what could be part of a line's end.
_texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.text("a,;|\t\r\n\"' é\u2028\ufeff", max_size=8)
_labels = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=4)
tables = st.lists(st.tuples(_texts, _labels), min_size=1, max_size=6)
"""Rows of texts and labels."""

Rows = Sequence[tuple[str, str]]
Write = Callable[[Rows, Path], Path]
"""Writes texts and labels into a folder, as the columns "text" and "label"; gives the file."""


def _csv(name: str, encoding: str = "utf-8", **dialect: object) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        out = io.StringIO(newline="")
        csv.writer(out, **dialect).writerows([("text", "label"), *rows])  # type: ignore[arg-type]
        data = out.getvalue().encode(encoding)
        path = folder / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def _frame(rows: Rows) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=["text", "label"], dtype=object)
    frame["empty"] = [None if place % 2 else float("nan") for place in range(len(rows))]
    return frame


def _pandas_csv(name: str, **options: object) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        _frame(rows).to_csv(folder / name, **options)  # type: ignore[call-overload]
        return folder / name

    return write


def _pandas_json(name: str, **options: object) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        _frame(rows).to_json(folder / name, **options)  # type: ignore[call-overload]
        return folder / name

    return write


def _json(name: str, array: bool, encoding: str = "utf-8", **options: object) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        records = [{"text": text, "label": label, "empty": None, "not": float("nan")} for text, label in rows]
        lines = [json.dumps(record, **options) for record in records]  # type: ignore[arg-type]
        content = json.dumps(records, **options) if array else "\n".join(lines) + "\n"  # type: ignore[arg-type]
        (folder / name).write_bytes(content.encode(encoding))
        return folder / name

    return write


def _table(rows: Rows) -> pa.Table:
    return pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})


def _arrow_csv(rows: Rows, folder: Path) -> Path:
    pyarrow.csv.write_csv(_table(rows), folder / "arrow.csv")
    return folder / "arrow.csv"


def _arrow_zst(rows: Rows, folder: Path) -> Path:
    path = folder / "arrow.csv.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        pyarrow.csv.write_csv(_table(rows), file)
    return path


def _parquet(rows: Rows, folder: Path) -> Path:
    pq.write_table(_table(rows), folder / "arrow.parquet", row_group_size=2)
    return folder / "arrow.parquet"


def _pandas_parquet(rows: Rows, folder: Path) -> Path:
    frame = _frame(rows)
    frame["label"] = frame["label"].astype("category")
    frame.to_parquet(folder / "pandas.parquet")
    return folder / "pandas.parquet"


WRITERS: dict[str, Write] = {
    "csv, excel": _csv("a.csv"),
    "csv, unix": _csv("a.csv", dialect="unix"),
    "csv, tabs": _csv("a.tsv", dialect="excel-tab"),
    "csv, tabs and another name": _csv("a.csv", dialect="excel-tab", quoting=csv.QUOTE_ALL),
    "csv, semicolons": _csv("a.csv", delimiter=";"),
    "csv, bars": _csv("a.csv", delimiter="|", lineterminator="\n"),
    "csv, lines end in CR": _csv("a.csv", lineterminator="\r", quoting=csv.QUOTE_ALL),
    "csv, UTF-8 with a mark": _csv("a.csv", "utf-8-sig"),
    "csv, UTF-16 with a mark": _csv("a.csv", "utf-16"),
    "csv, UTF-16 without": _csv("a.csv", "utf-16-le", delimiter=";"),
    "csv, gzip": _csv("a.csv.gz"),
    "pandas csv": _pandas_csv("p.csv"),
    "pandas csv, no index": _pandas_csv("p.csv", index=False),
    "pandas csv, semicolons": _pandas_csv("p.csv", sep=";", quoting=csv.QUOTE_NONNUMERIC),
    "pandas csv, UTF-16": _pandas_csv("p.csv", encoding="utf-16"),
    "pandas csv, bzip2": _pandas_csv("p.csv.bz2"),
    "pandas csv, xz": _pandas_csv("p.tsv.xz", sep="\t", index=False),
    "pandas json": _pandas_json("p.json"),
    "pandas json, records": _pandas_json("p.json", orient="records", force_ascii=False, indent=2),
    "pandas json, lines": _pandas_json("p.jsonl", orient="records", lines=True),
    "pandas json, lines, gzip": _pandas_json("p.jsonl.gz", orient="records", lines=True, force_ascii=False),
    "pandas json, split": _pandas_json("p.json", orient="split"),
    "pandas json, index": _pandas_json("p.json", orient="index"),
    "pandas json, table": _pandas_json("p.json", orient="table"),
    "json lines": _json("j.jsonl", array=False, ensure_ascii=False),
    "json lines, ASCII": _json("j.json", array=False),
    "json lines, UTF-16": _json("j.ndjson", array=False, encoding="utf-16", ensure_ascii=False),
    "json array": _json("j.json", array=True, ensure_ascii=False),
    "json array, indented": _json("j.json", array=True, indent=4),
    "json array called lines": _json("j.jsonl", array=True),
    "pyarrow csv": _arrow_csv,
    "pyarrow csv, zstd": _arrow_zst,
    "pyarrow parquet": _parquet,
    "pandas parquet": _pandas_parquet,
}
