"""The input of a run: how files of a format are cut into shards, and how these are read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from edgetune.data.sources import Source
from edgetune.data.text_files import Note, Reading, repeats_counted
from edgetune.scoring import parquet_shards, text_shards
from edgetune.scoring.parquet_shards import ParquetReader
from edgetune.scoring.shards import Advance, Shard
from edgetune.scoring.text_shards import TextReader


def scan(
    sources: Sequence[Source], reading: Reading, shard_rows: int, advance: Advance, note: Note
) -> tuple[pa.Schema, list[Shard]]:
    """The schema of all rows, and the shards of all files, in order.

    Args:
        sources: files of one format.
        reading: what is known of them.
        shard_rows: most rows of a shard.
        advance: is told of bytes that were looked at.
        note: is told what the user should know.

    Raises:
        DataError: a file cannot be read, or its columns do not go with those of the others.
    """
    paths = [source.path for source in sources]
    if sources[0].format == "parquet":
        parquet = [parquet_shards.scan(source, shard_rows, advance) for source in sources]
        schema = parquet_shards.schema([(path, columns) for path, (columns, _) in zip(paths, parquet, strict=True)])
        return schema, [shard for _, shards in parquet for shard in shards]
    with repeats_counted(note) as once:
        text = [text_shards.scan(source, reading, shard_rows, advance, once) for source in sources]
    schema = text_shards.schema([columns for columns, _ in text])
    return schema, [shard for _, shards in text for shard in shards]


Reader = TextReader | ParquetReader


def reader(shard: Shard, schema: pa.Schema, text_column: str) -> Reader:
    """What reads the rows of shards such as this one, in the schema that all rows have."""
    return (ParquetReader if shard.form is None else TextReader)(schema, text_column)
