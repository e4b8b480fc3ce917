"""Options of a training as a caller in Python gives them, checked as the command line checks its own."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from edgetune.training.options import CONTRASTIVE, EPOCHS, LabelWords, TrainingOptions
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.class_weight import class_weight_of
from edgetune_runtime.fitting.describe import Descriptions, descriptions_of
from edgetune_runtime.task import Task

_IN_EPOCHS = ("epochs", "patience", "head_learning_rate")
_BEGINNING = ("init", "init_text", "prompt_length")


def training_options(options: TrainingOptions | None, fields: Mapping[str, Any]) -> TrainingOptions:
    """The options of a training.

    Args:
        options: what holds for the fields that are not given; the defaults by default.
        fields: fields of `TrainingOptions`. `init_from` may be a task file.

    Raises:
        DataError: a value is not what its field can be, or two do not go together.
        TypeError: there is no such field.
    """
    if options is not None and not isinstance(options, TrainingOptions):
        raise DataError(f"the options are a {type(options).__name__}: expected edgetune.TrainingOptions")
    known = [one.name for one in dataclasses.fields(TrainingOptions)]
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"expected some of {', '.join(known)}"
            raise TypeError(f"training has no option '{name}': {hint}")
    base = options or TrainingOptions()
    changed = {
        one.name: getattr(base, one.name) for one in dataclasses.fields(base) if getattr(base, one.name) != one.default
    }
    chosen = TrainingOptions(**_implied({**changed, **fields}))
    return dataclasses.replace(
        chosen, **{one.name: _value(one, getattr(chosen, one.name)) for one in dataclasses.fields(chosen)}
    )


def _implied(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, and what some of them imply."""
    found = dict(fields)
    in_epochs = [name for name in _IN_EPOCHS if found.get(name) is not None]
    if in_epochs:
        if found.get("recipe") == CONTRASTIVE:
            raise DataError(f"{_named(in_epochs)} came with the recipe '{CONTRASTIVE}', which has no epochs")
        found["recipe"] = EPOCHS
    beginning = [name for name in _BEGINNING if name in found]
    if found.get("init_from") is not None and beginning:
        raise DataError(f"{_named(beginning)} came with `init_from`, which gives the prompt and its length")
    if found.get("init_text"):
        if found.get("init", "text") != "text":
            raise DataError(f"`init_text` came with the init '{found['init']}': expected one of them")
        found["init"] = "text"
    elif found.get("init") == "text":
        raise DataError("the init 'text' came without `init_text`: expected the text that the prompt begins as")
    if found.get("train_head") is False and not found.get("label_words"):
        raise DataError("train_head=False came without `label_words`, which the head would be")
    return found


def _named(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _value(one: dataclasses.Field[Any], value: Any) -> Any:
    """A field's value as training takes it: what its metadata says of the command line's option holds here too."""
    how = one.metadata
    if one.name in _OWN:
        return _OWN[one.name](value)
    if value is None and one.default is None:
        return None
    if "choices" in how:
        if value not in how["choices"]:
            raise _odd(one.name, value, f"one of {', '.join(how['choices'])}")
        return value
    if "least" in how or "above" in how:
        return _number(one.name, value, how.get("least"), how.get("above"))
    if not isinstance(value, type(one.default)):
        raise _odd(one.name, value, "True or False" if isinstance(one.default, bool) else "a string")
    return value


def _number(name: str, value: Any, least: float | None, above: float | None) -> float:
    whole = isinstance(least, int)
    wanted = f"a {'whole number' if whole else 'number'} " + (f"above {above:g}" if least is None else f"from {least}")
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    low = not is_number or (least is not None and value < least) or (above is not None and value <= above)
    if low or not math.isfinite(value):
        raise _odd(name, value, wanted)
    return int(value) if whole else float(value)


def _label_words(value: Any) -> LabelWords | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or len(value) < 2 or not all(map(_are_words, value.values())):
        raise _odd("label_words", value, "label → list of words, for at least two labels")
    words = [word for listed in value.values() for word in listed]
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:
        raise DataError(f"`label_words` has {', '.join(twice)} more than once: expected each word for one label")
    return {label: list(listed) for label, listed in value.items()}


def _are_words(listed: Any) -> bool:
    return isinstance(listed, list | tuple) and bool(listed) and all(isinstance(word, str) for word in listed)


def _init_from(value: Any) -> Task | None:
    if isinstance(value, str | Path):
        return Task.load(value)
    if value is not None and not isinstance(value, Task):
        raise _odd("init_from", value, "a task, or a task file")
    return value


def _descriptions(value: Any) -> Descriptions | None:
    return None if value is None else descriptions_of(value)


_OWN = {
    "class_weight": class_weight_of,
    "descriptions": _descriptions,
    "init_from": _init_from,
    "label_words": _label_words,
}
"""Field → what makes its value, if the metadata does not say all."""


def _odd(name: str, value: Any, wanted: str) -> DataError:
    return DataError(f"`{name}` is {value!r:.60}: expected {wanted}")
