"""Data sets on the Hugging Face hub, and folders with a data set, read by `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgetune.data.lines import PACKINGS
from edgetune.data.sources import FORMATS
from edgetune_runtime.errors import DataError, MissingPackageError

_EXPECTED = (
    f"expected a file that ends in {', '.join(FORMATS)} (text perhaps packed as {', '.join(PACKINGS)}), a folder of "
    f"such files, or a data set of the hub as NAME[:CONFIG][:SPLIT]"
)


class DataSet:
    """A data set.

    Args:
        source: `NAME[:CONFIG][:SPLIT]`; the default split is "train".

    Attributes:
        columns: names of its columns.

    Raises:
        DataError: the data set, configuration or split does not exist.
        MissingPackageError: `datasets` is not installed.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._rows = _loaded(source)
        self.columns: Sequence[str] = self._rows.column_names

    def rows(self, label_column: str | None = None) -> Iterator[dict[str, Any]]:
        """The rows.

        Args:
            label_column: a column whose class numbers, alone or in lists, are replaced by their class names, if there
                are any.

        Raises:
            DataError: a number in that column has no name.
        """
        feature = self._rows.features.get(label_column)
        names = getattr(getattr(feature, "feature", feature), "names", None)
        for row in self._rows:
            named = {} if not names or label_column is None else {label_column: self._named(row[label_column], names)}
            yield {**row, **named}

    def _named(self, label: Any, names: Sequence[Any]) -> Any:
        if isinstance(label, list):
            return [self._named(one, names) for one in label]
        if not isinstance(label, int):
            return label
        if not 0 <= label < len(names):
            raise DataError(
                f"{self._source} has a row with the label {label}, which means unlabelled: choose a labelled split, as "
                f"NAME:SPLIT"
            )
        return names[label]


def _loaded(source: str) -> Any:
    name, config, split = parts(source)
    try:
        import datasets
    except ImportError as error:
        if not Path(name).exists() and "/" not in name:
            raise DataError(
                f"there is no file {source}: {_EXPECTED} (for which: pip install 'edgetune[datasets]')"
            ) from error
        raise MissingPackageError("datasets", "datasets") from error
    try:
        return datasets.load_dataset(name, config or None, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"the data {source} cannot be read ({reason}{_choices(name, config)}): {_EXPECTED}") from error


def parts(source: str) -> tuple[str, str, str]:
    """Name, configuration and split of a data set. A folder's name may contain colons."""
    pieces = source.rsplit(":", 2)
    while len(pieces) > 1 and Path(":".join(pieces[:2])).exists():
        pieces[:2] = [":".join(pieces[:2])]
    name, *more = pieces
    config, split = ["", *more][-2:] if more else ["", "train"]
    return name, config, split or "train"


def _choices(name: str, config: str) -> str:
    """The existing configurations, if the named one is not among them."""
    import datasets

    try:
        known = datasets.get_dataset_config_names(name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError):
        return ""
    if len(known) < 2 or config in known:
        return ""
    return f"; its configurations are {', '.join(known)}: name one, as {name}:{known[0]}:train"
