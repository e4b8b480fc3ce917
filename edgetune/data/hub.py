"""Data sets of the Hugging Face hub, and folders that hold one, read by `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgetune.data.lines import PACKINGS
from edgetune.data.sources import FORMATS
from edgetune_runtime.errors import DataError, MissingPackageError

_EXPECTED = (
    f"expected a file that ends in {', '.join(FORMATS)} (text perhaps packed as {', '.join(PACKINGS)}), a folder of "
    f"such files, or a data set of the hub as NAME[:CONFIG][:SPLIT]"
)


def read(source: str, label_column: str) -> Iterator[dict[str, Any]]:
    """The rows of a data set. Labels that are numbers with names come as their names.

    Args:
        source: `NAME[:CONFIG][:SPLIT]`; the split is "train" unless one is named.
        label_column: the column with the labels.

    Raises:
        DataError: there is no such data set, configuration or split, or a row of it has no label.
        MissingPackageError: `datasets` is not installed.
    """
    name, config, split = parts(source)
    try:
        import datasets
    except ImportError as error:
        if not Path(name).exists() and "/" not in name:
            raise DataError(
                f"there is no file {source}: {_EXPECTED} (for which: pip install 'edgetune[hub]')"
            ) from error
        raise MissingPackageError("datasets", "hub") from error
    try:
        loaded = datasets.load_dataset(name, config or None, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"the data {source} cannot be read ({reason}{_choices(name, config)}): {_EXPECTED}") from error
    names = getattr(loaded.features.get(label_column), "names", None)
    for row in loaded:
        label = row.get(label_column)
        if names and isinstance(label, int):
            if not 0 <= label < len(names):
                raise DataError(
                    f"{source} has a row with the label {label}, which means unlabelled: choose a labelled split, as "
                    f"NAME:SPLIT"
                )
            row = {**row, label_column: names[label]}
        yield row


def parts(source: str) -> tuple[str, str, str]:
    """Name, configuration and split of a data set. A folder's own name may have colons."""
    pieces = source.rsplit(":", 2)
    while len(pieces) > 1 and Path(":".join(pieces[:2])).exists():
        pieces[:2] = [":".join(pieces[:2])]
    name, *more = pieces
    config, split = ["", *more][-2:] if more else ["", "train"]
    return name, config, split or "train"


def _choices(name: str, config: str) -> str:
    """The configurations that there are, if the one that was named is none of them."""
    import datasets

    try:
        known = datasets.get_dataset_config_names(name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError):
        return ""
    if len(known) < 2 or config in known:
        return ""
    return f"; its configurations are {', '.join(known)}: name one, as {name}:{known[0]}:train"
