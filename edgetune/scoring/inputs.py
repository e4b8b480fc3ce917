"""The input of a run: cutting files of a format into shards, and reading these."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from edgetune.data.sources import Note, Source
from edgetune.data.text_files import Reading, repeats_counted
from edgetune.scoring import parquet_shards, text_shards
from edgetune.scoring.parquet_shards import ParquetReader
from edgetune.scoring.shards import Advance, Shard
from edgetune.scoring.text_shards import TextReader


def scan(
    sources: Sequence[Source],
    reading: Reading,
    text_columns: Sequence[str],
    shard_rows: int,
    advance: Advance,
    note: Note,
) -> tuple[pa.Schema, list[Shard]]:
    """Find the schema of all rows, and the shards of all files, in order.

    Args:
        sources: files of one format.
        reading: what the user says about them.
        text_columns: the columns with the texts, which must be unique in a file.
        shard_rows: maximum number of rows of a shard.
        advance: called with the number of bytes read.
        note: receives messages for the user.

    Raises:
        DataError: a file cannot be read, or its columns do not fit those of the others.
    """
    paths = [source.path for source in sources]
    if sources[0].format == "parquet":
        parquet = [parquet_shards.scan(source, text_columns, shard_rows, advance) for source in sources]
        schema = parquet_shards.schema([(path, columns) for path, (columns, _) in zip(paths, parquet, strict=True)])
        return schema, [shard for _, shards in parquet for shard in shards]
    with repeats_counted(note) as once:
        text = [text_shards.scan(source, reading, text_columns, shard_rows, advance, once) for source in sources]
    schema = text_shards.schema([columns for columns, _ in text])
    return schema, [shard for _, shards in text for shard in shards]


Reader = TextReader | ParquetReader


def reader(shard: Shard, schema: pa.Schema, text_columns: Sequence[str]) -> Reader:
    """A reader for the rows of shards like this one, in the common schema.

    Args:
        shard: one of the shards.
        schema: the common schema of all rows.
        text_columns: the column with the texts and, if pairs are read, the column with the second texts.
    """
    return (ParquetReader if shard.form is None else TextReader)(schema, text_columns)
