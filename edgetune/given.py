"""Training options from a Python caller, with the same checks as on the command line."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from edgetune.training.options import LabelWords, TrainingOptions, parse_parts
from edgetune.training.rules import with_implied
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.class_weight import class_weight_of
from edgetune_runtime.fitting.descriptions import NAMES, NONE, Describing, descriptions_of
from edgetune_runtime.task import Task


def training_options(options: TrainingOptions | None, fields: Mapping[str, Any]) -> TrainingOptions:
    """Check training options.

    Args:
        options: values for the fields that are not given; by default `TrainingOptions()`.
        fields: fields of `TrainingOptions`. `init_from` may be a task file.

    Raises:
        DataError: a value is not valid for its field, or two values exclude each other.
        TypeError: a field does not exist.
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
    chosen = TrainingOptions(**with_implied({**changed, **fields}))
    return dataclasses.replace(
        chosen, **{one.name: _value(one, getattr(chosen, one.name)) for one in dataclasses.fields(chosen)}
    )


def _value(one: dataclasses.Field[Any], value: Any) -> Any:
    """A field's value for training. The metadata of the command line's option applies here too."""
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


def _parts(value: Any) -> Mapping[str, int] | None:
    if isinstance(value, str):
        return parse_parts(value)
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise _odd("parts", value, "part → its length")
    return parse_parts(",".join(f"{name}:{length}" for name, length in value.items()))


def _descriptions(value: Any) -> Describing:
    if value is None:
        return NONE
    return value if isinstance(value, str) and value in (NAMES, NONE) else descriptions_of(value)


_OWN = {
    "class_weight": class_weight_of,
    "descriptions": _descriptions,
    "init_from": _init_from,
    "label_words": _label_words,
    "parts": _parts,
}
"""Field → function that converts its value, if the metadata is not sufficient."""


def _odd(name: str, value: Any, wanted: str) -> DataError:
    return DataError(f"`{name}` is {value!r:.60}: expected {wanted}")
