"""Entities in data: the forms that are accepted, and checks of their positions."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from edgetune_runtime.kinds.kind import Entity, Place, whole
from edgetune_runtime.offsets import characters_at
from edgetune_runtime.words import words

_STARTS, _ENDS, _LABELS = ("start", "start_offset"), ("end", "end_offset"), ("label", "labels", "entity_group")


def are_in(value: object) -> bool:
    """Whether a value is a list, perhaps written as JSON, with an object or a triple (start, end, label) in it."""
    value = _read_json(value)
    return isinstance(value, list | tuple) and any(map(_is_entity, value))


def read(value: object) -> tuple[Entity, ...]:
    """Entities of a text, given a list of objects or triples, perhaps written as JSON; in order.

    Raises:
        ValueError: it is something else, or two of them overlap.
    """
    value = _read_json(value)
    if value is None or value == "":
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of entities, each with start, end and label")
    found = sorted(map(_entity, value))
    for one, other in pairwise(found):
        if other.start < one.end:
            raise ValueError(
                f"the entities {one.label} from {one.start} to {one.end} and {other.label} from {other.start} to "
                f"{other.end} overlap: expected each word in one entity at the most"
            )
    return tuple(found)


def inside(entities: Sequence[Entity], text: str) -> tuple[Entity, ...]:
    """Entities without the spaces at their ends.

    Raises:
        ValueError: one ends behind the text or has only spaces, or their offsets are not in characters.
    """
    return tuple(_trimmed(one, text) for one in _in_characters(entities, text))


def touched(entity: Entity, places: Sequence[Place]) -> range:
    """Which of the places an entity touches."""
    first = bisect_right(places, entity.start, key=lambda place: place[1])
    return range(first, max(first, bisect_left(places, entity.end, key=lambda place: place[0])))


def fits(entity: Entity, places: Sequence[Place]) -> bool:
    """Whether an entity starts at the start of a place and ends at the end of one."""
    own = touched(entity, places)
    return len(own) > 0 and (places[own[0]][0], places[own[-1]][1]) == (entity.start, entity.end)


def _read_json(value: object) -> object:
    """Parse a text that looks like a JSON list; return other values unchanged."""
    if not isinstance(value, str) or not value.startswith(("[{", "[[", "[]")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_entity(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(name in value for name in _STARTS)
    return isinstance(value, list | tuple) and len(value) == 3 and all(_number(one) is not None for one in value[:2])


def _entity(value: object) -> Entity:
    """An entity as data has it: an object, or start, end and label."""
    if isinstance(value, Mapping):
        start, end, label = (
            next((value[name] for name in names if name in value), None) for names in (_STARTS, _ENDS, _LABELS)
        )
    elif isinstance(value, list | tuple) and len(value) == 3:
        start, end, label = value
    else:
        raise ValueError("expected a list of entities, each an object with start, end and label")
    begin, stop = _number(start), _number(end)
    if begin is None or stop is None or not 0 <= begin < stop:
        raise ValueError(
            f"an entity goes from {start!r:.20} to {end!r:.20}: expected a start of at least 0 and an end behind it, "
            f"in characters"
        )
    several = list(label) if isinstance(label, list | tuple) else [label]
    name = whole(several[0]) if len(several) == 1 else None
    if name is None:
        raise ValueError(f"the entity from {begin} to {stop} has the label {label!r:.40}: expected one label")
    return Entity(begin, stop, name)


def _number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def _trimmed(entity: Entity, text: str) -> Entity:
    own = text[entity.start : entity.end]
    if not own.strip():
        raise ValueError(f"the entity {entity.label} from {entity.start} to {entity.end} has only spaces")
    start = entity.start + len(own) - len(own.lstrip())
    return Entity(start, start + len(own.strip()), entity.label)


def _in_characters(entities: Sequence[Entity], text: str) -> Sequence[Entity]:
    """The entities, if they can be in characters of the text.

    Raises:
        ValueError: one ends behind the text, or all are exactly words in bytes or UTF-16 units, and not in characters.
    """
    beyond = next((one for one in entities if one.end > len(text)), None)
    if not text.isascii() and entities:
        places = words(text)
        if beyond is not None or not all(fits(one, places) for one in entities):
            for unit, converted in _converted(entities, text):
                if all(fits(one, places) for one in converted):
                    one, given = converted[-1], entities[-1]
                    raise ValueError(
                        f"its offsets are {unit}: {text[one.start : one.end]!r:.40}, which the data has from "
                        f"{given.start} to {given.end}, goes from {one.start} to {one.end} in characters; expected "
                        f"characters"
                    )
    if beyond is not None:
        raise ValueError(
            f"the entity {beyond.label} ends at {beyond.end}, and the text has {len(text)} characters: expected it "
            f"inside the text"
        )
    return entities


def _converted(entities: Sequence[Entity], text: str) -> Iterator[tuple[str, list[Entity]]]:
    """The entities in characters, if their offsets are in units of another kind that can be."""
    for unit, character_at in characters_at(text):
        if all(one.start in character_at and one.end in character_at for one in entities):
            yield unit, [Entity(character_at[one.start], character_at[one.end], one.label) for one in entities]
