"""The wire format of Protocol Buffers (https://protobuf.dev/programming-guides/encoding): fields of a message."""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

Data = bytes | mmap

VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}


class Field(NamedTuple):
    """A field of a message, by places in the data.

    Attributes:
        number: its number.
        kind: its wire type, such as `VARINT` or `BYTES`.
        begin: where it begins.
        first: where its value begins.
        last: where it ends.
    """

    number: int
    kind: int
    begin: int
    first: int
    last: int


def fields(data: Data, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of the message from `start` to `end`.

    Raises:
        ValueError: there is no such message.
    """
    end = len(data) if end is None else end
    while start < end:
        begin = start
        tag, first = _varint(data, start, end)
        number, kind = tag >> 3, tag & 7
        if kind == BYTES:
            length, first = _varint(data, first, end)
            if length > end - first:
                raise ValueError(f"a field of {length} bytes where {end - first} are left")
            start = first + length
        elif kind == VARINT:
            _, start = _varint(data, first, end)
        elif kind in _FIXED_BYTES:
            start = first + _FIXED_BYTES[kind]
        else:
            raise ValueError(f"a field of wire type {kind}")
        yield Field(number, kind, begin, first, start)
    if start > end:
        raise ValueError("a field goes past its message")


def values(data: Data, number: int) -> list[bytes]:
    """The values, as bytes, of all fields of that number.

    Raises:
        ValueError: the data are no message.
    """
    return [bytes(data[field.first : field.last]) for field in fields(data) if field.number == number]


def written(number: int, value: bytes | int) -> bytes:
    """A field as it is written."""
    if isinstance(value, int):
        return bytes([number << 3 | VARINT]) + _seven_bits(value)
    return head(number, len(value)) + value


def head(number: int, length: int) -> bytes:
    """The beginning of a field of so many bytes."""
    return bytes([number << 3 | BYTES]) + _seven_bits(length)


def _seven_bits(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _varint(data: Data, start: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for place in range(start, min(end, start + 10)):
        value |= (data[place] & 0x7F) << 7 * (place - start)
        if data[place] < 0x80:
            return value, place + 1
    raise ValueError("a number without end")
