"""What an attacker sends: a table of kinds of cases, each with variations that a seed chooses.

`KINDS` is the table: a name, and a function that makes a case.
"""

from __future__ import annotations

import itertools
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torture.common import post

CLIENT_S = 1.0
"""How long the server waits for a client."""

LOAD = "/v2/repository/models/spare/load"
Part = bytes | float
"""Bytes to send, or seconds to wait."""


@dataclass(frozen=True)
class Case:
    """What an attacker sends.

    Attributes:
        parts: bytes, and pauses between them.
        most: most answers that may come back; more would mean that bytes of one request were taken for another.
        ends: whether the server has to end the connection.
        bodiless: whether answers have no body, whatever their header says.
    """

    parts: list[Part]
    most: int = 1
    ends: bool = False
    bodiless: bool = False


Kind = Callable[[random.Random], Case]
KINDS: dict[str, Kind] = {}
"""All kinds of cases by name."""


def kind(make: Kind) -> Kind:
    """Put a kind into the table."""
    KINDS[make.__name__] = make
    return make


def kinds(name: str, variants: dict[str, Kind]) -> None:
    """Put several kinds into the table."""
    KINDS.update({f"{name}: {variant}": make for variant, make in variants.items()})


def head(*headers: str | bytes, line: str | bytes = "POST /v1/classify HTTP/1.1", host: bool = True) -> bytes:
    """A request's header, to its end."""
    lines = [line, *(["host: x"] if host else []), *headers, "", ""]
    return b"\r\n".join(one if isinstance(one, bytes) else one.encode("latin-1") for one in lines)


JSON_TYPE = "content-type: application/json"
SOUND = post("/v1/classify", {"model": "colour", "input": "good"})
GET = head(line="GET /tasks HTTP/1.1")
CHUNKED = head(JSON_TYPE, "transfer-encoding: chunked")
BODY = SOUND.partition(b"\r\n\r\n")[2]


def slow(data: bytes, start: int, chance: random.Random) -> list[Part]:
    """Bytes that, from some position on, are sent one by one, for longer than the server waits."""
    pause = chance.uniform(0.05, 0.3)
    parts: list[Part] = [data[:start]] if start else []
    for byte in itertools.islice(data[start:-1], int(2 * CLIENT_S / pause)):
        parts += [pause, bytes([byte])]
    return parts


kinds(
    "slow",
    {
        "nothing": lambda chance: Case([2 * CLIENT_S], 0, ends=True),
        "header": lambda chance: Case(slow(SOUND, chance.randrange(20), chance), ends=True),
        "half a header": lambda chance: Case([SOUND[: chance.randrange(1, 60)]], ends=True),
        "body": lambda chance: Case(slow(SOUND, SOUND.index(b"\r\n\r\n") + 4, chance), ends=True),
        "half a body": lambda chance: Case([SOUND[: -chance.randrange(1, len(BODY))]], ends=True),
        "chunks": lambda chance: Case(slow(CHUNKED + b"1\r\n{\r\n" * 40, len(CHUNKED), chance), ends=True),
        "no last chunk": lambda chance: Case([CHUNKED + b"%x\r\n%b\r\n" % (len(BODY), BODY)], ends=True),
        "empty lines": lambda chance: Case(slow(b"\r\n" * 40, 0, chance), ends=True),
        "second header": lambda chance: Case([SOUND, 0.1, *slow(SOUND, 5, chance)], 2, ends=True),
        "second header at once": lambda chance: Case([SOUND + SOUND[: chance.randrange(1, 60)]], 2, ends=True),
        "second body": lambda chance: Case([SOUND, 0.1, SOUND[: -chance.randrange(1, 9)]], 2, ends=True),
        "reader": lambda chance: Case([GET * 40, 1.0], 40),
    },
)


def letters(chance: random.Random, count: int) -> str:
    """Random letters."""
    return "".join(chance.choices(string.ascii_letters, k=count))


kinds(
    "bomb",
    {
        "a long value": lambda chance: Case([head(f"x: {'y' * chance.randrange(17_000, 300_000)}")]),
        "a long name": lambda chance: Case([head(f"{letters(chance, chance.randrange(17_000, 90_000))}: y")]),
        "many": lambda chance: Case([head(*[f"x{place}: y" for place in range(chance.randrange(2_000, 20_000))])]),
        "many alike": lambda chance: Case([head(*["cookie: a=b"] * chance.randrange(2_000, 20_000))]),
        "many empty": lambda chance: Case([head(*["x:"] * chance.randrange(9_000, 90_000))]),
        "folded": lambda chance: Case([head("x: y", *[" y"] * chance.randrange(1_000, 30_000))]),
        "a long path": lambda chance: Case([head(line=f"GET /{'y' * chance.randrange(17_000, 300_000)} HTTP/1.1")]),
        "a long query": lambda chance: Case([head(line=f"GET /?{'y&' * chance.randrange(9_000, 90_000)} HTTP/1.1")]),
        "a long method": lambda chance: Case([head(line=f"{'G' * chance.randrange(99, 90_000)} / HTTP/1.1")]),
        "endless": lambda chance: Case([b"GET / HTTP/1.1\r\n", *[b"a: " + b"b" * 60_000] * 30], ends=True),
        "empty lines": lambda chance: Case([b"\r\n" * chance.randrange(9_000, 200_000)], ends=True),
        "just below": lambda chance: Case([head(f"x: {'y' * 16_000}", line="GET /tasks HTTP/1.1")]),
    },
)


def smuggled(*headers: str | bytes, body: bytes = b"0\r\n\r\n", most: int = 1, ends: bool = False) -> Kind:
    """A request with odd framing, with another request in its body."""
    return lambda chance: Case(
        [head(JSON_TYPE, *headers) + body + chance.choice((b"", GET, GET + GET))], most + 2, ends
    )


CODINGS = (
    *("chunked", "Chunked", " chunked", "chunked ", "\tchunked", "\x0bchunked", "xchunked", "chunked, identity"),
    *("identity", "gzip, chunked", "chunked, chunked", '"chunked"', "chunked;a=b", ",chunked", "chun\tked", ""),
)
LENGTHS = (
    "+5",
    "-5",
    "0x5",
    "5 5",
    "5, 5",
    "5,6",
    " 5",
    "5\t",
    "5.0",
    "1e1",
    "05",
    "",
    "5;",
    "18446744073709551621",
    "٥",
)
EXTENSIONS = (
    "5;a=b",
    "5;" + "a" * 30_000,
    "5 ;x",
    "5\t",
    "0x5",
    "+5",
    "-1",
    "5_0",
    "F" * 16,
    "1" + "0" * 19,
    "0005",
    "",
    "g",
)


@kind
def coding_and_length(chance: random.Random) -> Case:
    """RFC 9112, 6.3: an error, or the coding counts and the connection ends."""
    headers = [f"transfer-encoding: {chance.choice(CODINGS)}", f"content-length: {chance.choice((0, 5, 6, 300))}"]
    chance.shuffle(headers)
    return Case([head(JSON_TYPE, *headers) + b"0\r\n\r\n" + GET])


@kind
def odd_coding(chance: random.Random) -> Case:
    """Codings that one server may take for "chunked" and another not."""
    return Case([head(JSON_TYPE, f"transfer-encoding: {chance.choice(CODINGS)}") + b"0\r\n\r\n"], most=2)


@kind
def odd_length(chance: random.Random) -> Case:
    """Lengths that are not numbers, or not plain numbers."""
    value = chance.choice(LENGTHS).encode()
    return Case([head(JSON_TYPE, b"content-length: " + value) + b"hello"], most=2)


@kind
def two_lengths(chance: random.Random) -> Case:
    """The same or others."""
    one, other = chance.choices((0, 5, 6, 99), k=2)
    return Case([head(JSON_TYPE, f"content-length: {one}", f"Content-Length: {other}") + b"hello" + GET])


@kind
def chunk_sizes(chance: random.Random) -> Case:
    """Chunk sizes that are not hexadecimal numbers, and extensions."""
    size = chance.choice(EXTENSIONS).encode()
    return Case([CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n"], most=2)


HTTP_VERSIONS = ("HTTP/1.2", "HTTP/11.1", "http/1.1", "HTTP/2.0", "HTTP/", "X/1.1", "HTTP/1.1 x")


def header_line(
    *headers: str | bytes, body: bytes = b"", most: int = 2, line: str | bytes = "GET /tasks HTTP/1.1"
) -> Kind:
    """A request with odd headers."""
    return lambda chance: Case([head(*headers, line=line) + body + chance.choice((b"", GET))], most + 1)


kinds(
    "framing",
    {
        "folded coding": smuggled("transfer-encoding:\r\n chunked"),
        "folded length": smuggled("content-length:\r\n 5"),
        "bare CR": smuggled("x: y\rtransfer-encoding: chunked"),
        "bare LF": smuggled("x: y\ntransfer-encoding: chunked"),
        "two codings": smuggled("transfer-encoding: chunked", "transfer-encoding: identity"),
        "space before the colon": smuggled("transfer-encoding : chunked"),
        "space first": smuggled(" transfer-encoding: chunked"),
        "a NUL in a name": smuggled("transfer\0-encoding: chunked"),
        "a NUL in a value": smuggled("x: y\0z", "content-length: 5"),
        "underlines": smuggled("content_length: 5", "transfer_encoding: chunked"),
        "trailers": smuggled("transfer-encoding: chunked", body=b"0\r\ncontent-length: 5\r\nx: y\r\n\r\n"),
        "many trailers": smuggled("transfer-encoding: chunked", body=b"0\r\n" + b"x: y\r\n" * 5_000 + b"\r\n"),
        "chunk too short": smuggled("transfer-encoding: chunked", body=b"9\r\nhello\r\n0\r\n\r\n"),
        "chunk too long": smuggled("transfer-encoding: chunked", body=b"2\r\nhello\r\n0\r\n\r\n"),
        "bare LF in chunks": smuggled("transfer-encoding: chunked", body=b"5\nhello\n0\n\n"),
        "more than the length": smuggled("content-length: 5", body=b"hello, and more"),
        "a body for GET": header_line("content-length: 5", body=b"hello"),
        "no host": lambda chance: Case([head(line="GET /tasks HTTP/1.1", host=False)]),
        "two hosts": header_line("host: y"),
        "odd hosts": lambda chance: Case(
            [head(f"host: {chance.choice(('', '@', 'a b', '[', 'x:99999', 'é'))}", host=False)]
        ),
        "all bare LF": lambda chance: Case([SOUND.replace(b"\r\n", b"\n")]),
        "all bare CR": lambda chance: Case([SOUND.replace(b"\r\n", b"\r")]),
        "HTTP/1.0 with chunks": header_line(
            "transfer-encoding: chunked", body=b"0\r\n\r\n", line="POST /v1/classify HTTP/1.0"
        ),
        "an old version": lambda chance: Case([chance.choice((b"GET /tasks\r\n\r\n", b"GET /tasks HTTP/0.9\r\n\r\n"))]),
        "other versions": lambda chance: Case([head(line=f"GET /tasks {chance.choice(HTTP_VERSIONS)}")]),
        "HTTP/2": lambda chance: Case([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(chance.randrange(99))]),
        "TLS": lambda chance: Case([b"\x16\x03\x01\x02\x00\x01" + chance.randbytes(chance.randrange(300))]),
        "noise": lambda chance: Case([chance.randbytes(chance.randrange(1, 3_000))], most=9, ends=True),
        "noise after": lambda chance: Case([SOUND, chance.randbytes(chance.randrange(1, 300))], most=9, ends=True),
        "a header cut short": lambda chance: Case([SOUND[: chance.randrange(1, 40)] + b"\r\n\r\n"]),
    },
)


def deep(chance: random.Random) -> bytes:
    """JSON that is nested, deeply."""
    times = chance.choice((100, 1_000, 1_100, 30_000, 3_000_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    inside = opening * times + chance.choice((b"1" + closing * times, b""))
    return chance.choice((inside, b'{"model": "colour", "input": ' + inside + b"}", b'{"x": ' + inside + b"}"))


def shapes(chance: random.Random) -> bytes:
    """JSON of wrong shapes and types."""
    values: list[Any] = [None, True, 0, -1, 1e308, "", "colour", [], {}, [[]], [None], [1], {"a": 1}, ["good", 1]]
    return json.dumps(
        chance.choice(
            (
                chance.choice(values),
                {"model": chance.choice(values), "input": chance.choice(values)},
                {"model": "colour", "input": chance.choice(values), "min_score": chance.choice(values)},
                {"inputs": chance.choice(values)},
                {"inputs": [{"name": "text", "shape": chance.choice(values), "datatype": "BYTES", "data": ["good"]}]},
                {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": chance.choice(values)}]},
                {"inputs": [dict.fromkeys(("name", "shape", "datatype", "data"), chance.choice(values))]},
            )
        )
    ).encode()


NUMBERS = (
    b"1e400",
    b"-1e400",
    b"1" * 5_000,
    b"-0",
    b"9223372036854775808",
    b"18446744073709551616",
    b"1e-999",
    b"0.5.5",
)
ODD_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"0x1", b"1_0", b"nan", b"'1'", b"--1")
STRINGS = (
    *(
        b"\\ud800",
        b"\\udfff\\ud800",
        b"a\\udc80b",
        b"\\u0000",
        b"good\\u0000good",
        b"\xed\xa0\x80",
        b"\xff",
        b"\xc0\x80",
    ),
    *(
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\0",
        b"\n",
        b"\\x",
        b"\\u12",
        b"\\",
        b"\xef\xbb\xbf",
        b"\\ufffe",
        b"\x7f\x1b[2J",
    ),
)
MODELS = (
    b"",
    b"../colour",
    b"colour/../size",
    b"%63olour",
    b"COLOUR",
    b"c" * 100_000,
    b"colour ",
    b".colour",
    b"\xe2\x80\xae",
)


def numbers(chance: random.Random) -> bytes:
    """Numbers that are not valid JSON, or too large."""
    number = chance.choice((*NUMBERS, *ODD_NUMBERS))
    tensor = b'{"inputs": [{"name": "text", "shape": [%b], "datatype": "BYTES", "data": ["good"]}]}'
    return chance.choice((b'{"model": "colour", "input": "good", "min_score": %b}', tensor, b'{"model": %b}')) % number


def strings(chance: random.Random) -> bytes:
    """Strings that are not valid text."""
    text = chance.choice(STRINGS)
    tensor = b'{"id": "%b", "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["%b"]}]}'
    return chance.choice(
        (
            b'{"model": "colour", "input": "%b"}' % text,
            b'{"model": "%b", "input": "good"}' % text,
            b'{"model": "colour", "input": ["good", "%b"]}' % text,
            b'{"model": "colour", "input": "good", "%b": "%b"}' % (text, text),
            tensor % (b"id", text),
            tensor % (text, b"good"),
        )
    )


def changed(data: bytes, chance: random.Random) -> bytes:
    """Bytes, some of which are changed, added or removed."""
    found = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        place = chance.randrange(len(found))
        if chance.random() < 0.5:
            found[place] = chance.randrange(256)
        elif chance.random() < 0.5:
            del found[place]
        else:
            found[place:place] = chance.randbytes(chance.randrange(1, 5))
    return bytes(found)


def sent_as_json(body: Callable[[random.Random], bytes]) -> Kind:
    """A sound request around a body that is not, to one of the routes that read JSON."""

    def make(chance: random.Random) -> Case:
        path = chance.choice(("/v1/classify", "/v2/models/colour/infer"))
        return Case([post(path, body(chance))])

    return make


kinds(
    "json",
    {
        name: sent_as_json(body)
        for name, body in {
            "deep": deep,
            "shapes": shapes,
            "numbers": numbers,
            "strings": strings,
            "changed": lambda chance: changed(BODY, chance),
            "cut": lambda chance: BODY[: chance.randrange(len(BODY))],
            "more behind": lambda chance: BODY + chance.choice((BODY, b"x", b"\0", b"]", b"//")),
            "other encodings": lambda chance: BODY.decode().encode(
                chance.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7"))
            ),
            "two keys": lambda chance: b'{"model": "size", "model": "colour", "input": 1, "input": "good"}',
            "many keys": lambda chance: json.dumps({f"k{place}": place for place in range(200_000)}).encode(),
            "many texts": lambda chance: json.dumps(
                {"model": "colour", "input": ["a"] * chance.choice((0, 257, 900_000))}
            ).encode(),
            "a long text": lambda chance: json.dumps(
                {"model": "colour", "input": "a" * chance.choice((20_000, 20_001, 7_000_000))}
            ).encode(),
            "odd models": lambda chance: b'{"model": "%b", "input": "good"}' % chance.choice(MODELS),
            "odd texts": lambda chance: json.dumps(
                {
                    "model": "colour",
                    "input": chance.choice((" " * 9_000, "\u0301" * 9_000, "\u202e", "𝕏" * 5_000, "{mask}" * 500)),
                }
            ).encode(),
            "spaces": lambda chance: (
                chance.choice((b" ", b"\n", b"\t")) * chance.choice((1, 7_000_000)) + chance.choice((b"", BODY))
            ),
        }.items()
    },
)

TARGETS = (
    *(
        "http://x/tasks",
        "HTTP://x:99999/tasks",
        "http://",
        "http://@/",
        "//tasks",
        "///",
        "/../tasks",
        "/./tasks",
        "/tasks/",
    ),
    *(
        "/tasks;a=b",
        "/tasks#x",
        "/tasks?#",
        "/%00",
        "/%ff",
        "/%zz",
        "/%",
        "/v2/models/%2e%2e%2f",
        "/v2/models/a%2fb/infer",
    ),
    *(
        "/v2/models/%ed%a0%80",
        "/v2/models/colour/versions/%00",
        "*",
        "tasks",
        "?",
        "/\\",
        "/v2/models//infer",
        "/" * 9_000,
    ),
    *(
        "/v2/models/colour%0d%0ax:%20y",
        "/é",
        "/\x7f",
        "/a\tb",
        "/a b",
        "x:99999999999",
        "ftp://x/",
        "http://[::1/",
        "/page.js?%",
    ),
)
METHODS = (
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "BREW",
    "get",
    "Post",
    "M-SEARCH",
    "PURGE",
    "QUERY",
    "G\0T",
    "É",
    "PROPFIND",
)
TYPES = (
    *(
        "text/plain",
        "application/json; charset=utf-16",
        "application/jsonx",
        "",
        "application/json, text/plain",
        "\xff",
    ),
    *("multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "APPLICATION/JSON;", ";application/json"),
)


@kind
def targets(chance: random.Random) -> Case:
    """Absolute forms, dots, invalid percent encodings."""
    return Case([head(line=f"GET {chance.choice(TARGETS)} HTTP/1.1")])


@kind
def task_names(chance: random.Random) -> Case:
    """Invalid task names, also for the routes that change tasks."""
    name = "".join(
        chance.choice(("%2f", "%00", "%ff", "..", "a", " "[:0], "%c3%a9", "%0a", "~", "a" * 70)) for _ in range(4)
    )
    path = chance.choice(
        (f"/v2/models/{name}", f"/v2/models/{name}/versions/{name}", f"/v2/repository/models/{name}/unload")
    )
    return Case(
        [
            head(
                "authorization: Bearer key",
                "content-length: 0",
                line=f"{chance.choice(('GET', 'POST'))} {path} HTTP/1.1",
            )
        ]
    )


@kind
def methods(chance: random.Random) -> Case:
    """Methods that no route has."""
    path = chance.choice(("/", "/tasks", "/v1/classify", "/v2/models/colour/infer", "*", LOAD))
    return Case([head("content-length: 2", line=f"{chance.choice(METHODS)} {path} HTTP/1.1") + b"{}"])


@kind
def head_only(chance: random.Random) -> Case:
    """HEAD has no body, and nothing else comes in its place."""
    path = chance.choice(("/", "/tasks", "/openapi.json", "/v1/classify", "/nothing"))
    return Case([head(line=f"HEAD {path} HTTP/1.1")], bodiless=True)


@kind
def connect(chance: random.Random) -> Case:
    """CONNECT asks for a tunnel; there is none."""
    target = chance.choice(("x:443", "/tasks", "[::1]:80", "x"))
    return Case([head(line=f"CONNECT {target} HTTP/1.1") + chance.choice((b"", GET, b"\x16\x03\x01"))], most=2)


@kind
def media_types(chance: random.Random) -> Case:
    """Other content types than JSON, and odd ways to say JSON."""
    return Case([head(f"content-type: {chance.choice(TYPES)}", f"content-length: {len(BODY)}") + BODY])


@kind
def pipelined(chance: random.Random) -> Case:
    """Many sound requests at once."""
    many = chance.choice((2, 10, 100))
    return Case([b"".join(chance.choice((SOUND, GET)) for _ in range(many))], most=many)


@kind
def pipelined_and_bad(chance: random.Random) -> Case:
    """Sound requests with a bad one among them."""
    many = [chance.choice((SOUND, GET)) for _ in range(6)]
    many[chance.randrange(1, 6)] = chance.choice((b"hello\r\n\r\n", SOUND[:30] + b"\0", head("content-length: x")))
    return Case([b"".join(many)], most=6, ends=True)


UPGRADES = ("websocket", "h2c", "TLS/1.0", "websocket, h2c", "")


@kind
def upgrade(chance: random.Random) -> Case:
    """Upgrades, which are not offered."""
    headers = ["connection: Upgrade, HTTP2-Settings", f"upgrade: {chance.choice(UPGRADES)}", "http2-settings: AAMAAABk"]
    headers += ["sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="]
    return Case(
        [
            head(*headers, line=f"GET {chance.choice(('/tasks', '/'))} HTTP/1.1")
            + chance.choice((b"", b"\x81\x05hello"))
        ],
        most=2,
    )


@kind
def upgrade_with_a_body(chance: random.Random) -> Case:
    """The same for a request that has a body."""
    headers = [JSON_TYPE, "connection: upgrade", f"upgrade: {chance.choice(UPGRADES)}", f"content-length: {len(BODY)}"]
    return Case([head(*headers) + BODY], most=2)


@kind
def expect(chance: random.Random) -> Case:
    """Clients that wait to be told to go on, for ever or for a moment, and clients that expect something else."""
    value = chance.choice(("100-continue", "100-Continue", "200-ok", "", "100-continue, x"))
    ways: list[list[Part]] = [[], [0.2, BODY], [BODY]]
    rest = chance.choice(ways)
    return Case([head(JSON_TYPE, f"expect: {value}", f"content-length: {len(BODY)}"), *rest], ends=not rest)


@kind
def large_bodies(chance: random.Random) -> Case:
    """More than the server takes, announced or not."""
    size = chance.choice((8_000_001, 10**9, 10**18))
    if chance.random() < 0.5:
        return Case([head(JSON_TYPE, f"content-length: {size}"), b"x" * 100_000], ends=True)
    return Case([CHUNKED, *[b"186a0\r\n" + b" " * 100_000 + b"\r\n"] * 85], ends=True)


@kind
def authorization(chance: random.Random) -> Case:
    """Invalid keys."""
    values = (
        "Bearer",
        "Bearer ",
        "Bearer k\xe9y",
        "bearer\tkey",
        "Basic a2V5",
        "Bearer " + "k" * 9_000,
        "Bearer key\0",
    )
    headers = [f"authorization: {chance.choice(values)}"] * chance.choice((1, 2))
    return Case([head(*headers, "content-length: 0", line=f"POST {LOAD} HTTP/1.1")])


def task_files(sound: bytes) -> Kind:
    """Files of tasks that are damaged."""

    def make(chance: random.Random) -> Case:
        data = chance.choice(
            (
                changed(sound, chance),
                sound[: chance.randrange(len(sound))],
                chance.choice((2**63, 2**40, 10**8, 0)).to_bytes(8, "little") + sound[8:],
                chance.randbytes(chance.randrange(3_000)),
                (900_000).to_bytes(8, "little") + (b"[" * 900_000),
                (12).to_bytes(8, "little")
                + chance.choice((b'{"a":[1e999]', b'{"\\ud800":1}', b'{"a": null} ', b"NaN         ")),
            )
        )
        headers = ["authorization: Bearer key", f"content-length: {len(data)}"]
        return Case([head(*headers, line=f"POST {LOAD} HTTP/1.1") + data])

    return make
