"""An operator of a graph written as another that computes the same, in the graph's bytes, without the onnx package.

Only nodes change. If the weights are in another file, only about a hundred kilobytes are rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgetune_runtime.errors import BundleError
from edgetune_runtime.protobuf import Data, fields, values, written

ONNX_ATTENTION, OWN_ATTENTION = "Attention", "MultiHeadAttention"
"""The operator of ONNX, and the one of onnxruntime."""

_OWN = "com.microsoft"
_GRAPH, _OPSET = 7, 8  # of a model
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_NODE = 1  # of a graph
_INPUT, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 4, 5, 7
_NAME, _INTEGER = 1, 3  # of an attribute


@dataclass(frozen=True)
class _Node:
    """The parts of a node that are rewritten.

    `attributes` are by name, as they are written. `rest` is all other fields.
    """

    kind: tuple[str, str]
    inputs: list[str]
    attributes: dict[str, bytes]
    rest: bytes


def _to_onnx(node: _Node) -> _Node | None:
    query, key, value, *more = node.inputs
    if len(more) != 3 or any(more[:2]) or not more[2] or node.attributes.keys() != {"num_heads", "scale"}:
        return None
    heads = node.attributes["num_heads"]
    attributes = {name: _renamed(heads, name) for name in ("q_num_heads", "kv_num_heads")}
    attributes["scale"] = node.attributes["scale"]
    return replace(node, kind=("", ONNX_ATTENTION), inputs=[query, key, value, more[2]], attributes=attributes)


def _to_own(node: _Node) -> _Node | None:
    if len(node.inputs) != 4 or not all(node.inputs):
        return None
    if node.attributes.keys() != {"q_num_heads", "kv_num_heads", "scale"}:
        return None
    heads, shared = (values(node.attributes[name], _INTEGER) for name in ("q_num_heads", "kv_num_heads"))
    if heads != shared:  # heads that share keys and values are not known there
        return None
    *given, mask = node.inputs
    attributes = {
        "num_heads": _renamed(node.attributes["q_num_heads"], "num_heads"),
        "scale": node.attributes["scale"],
    }
    return replace(node, kind=(_OWN, OWN_ATTENTION), inputs=[*given, "", "", mask], attributes=attributes)


@dataclass(frozen=True)
class _Rewriting:
    """How one operator becomes another: `rewrite` gives `None` for a node that it cannot express."""

    source: tuple[str, str]
    rewrite: Callable[[_Node], _Node | None]
    domain: str
    since: int


_REWRITINGS = {
    ONNX_ATTENTION: _Rewriting((_OWN, OWN_ATTENTION), _to_onnx, "", 23),
    OWN_ATTENTION: _Rewriting(("", ONNX_ATTENTION), _to_own, _OWN, 1),
}


def with_attention(model: Data, operator: str) -> bytes | None:
    """A model whose attention is that operator; `None` if it has no other, or one that cannot be written so.

    Args:
        model: the bytes of the ONNX file.
        operator: `ONNX_ATTENTION` or `OWN_ATTENTION`.

    Raises:
        BundleError: the bytes are no ONNX model.
    """
    rewriting = _REWRITINGS[operator]
    try:
        parts, version = [], 0
        for field in fields(model):
            value = model[field.first : field.last]
            if field.number == _GRAPH:
                graph = _rewritten(value, rewriting)
                if graph is None:
                    return None
                parts.append(written(_GRAPH, graph))
            elif field.number == _OPSET and _text(value, _OPSET_DOMAIN) == rewriting.domain:
                version = max([version, *(_number(one) for one in values(value, _OPSET_VERSION))])
            else:
                parts.append(model[field.begin : field.last])
    except ValueError as error:
        raise BundleError(f"the graph is not sound ONNX ({error}): export the bundle again") from error
    opset = written(_OPSET_DOMAIN, rewriting.domain.encode())
    parts.append(written(_OPSET, opset + written(_OPSET_VERSION, max(version, rewriting.since))))
    return b"".join(parts)


def _rewritten(graph: bytes, rewriting: _Rewriting) -> bytes | None:
    parts, copied = [], 0
    for field in fields(graph):
        # Most nodes are others, and are not taken apart.
        if field.number != _NODE or rewriting.source[1].encode() not in graph[field.first : field.last]:
            continue
        node = _read(graph[field.first : field.last])
        if node.kind != rewriting.source:
            continue
        made = rewriting.rewrite(node)
        if made is None:
            return None
        parts += [graph[copied : field.begin], written(_NODE, _node(made))]
        copied = field.last
    return b"".join([*parts, graph[copied:]]) if parts else None


def _read(data: bytes) -> _Node:
    read = (_INPUT, _OPERATOR, _ATTRIBUTE, _DOMAIN)
    return _Node(
        kind=(_text(data, _DOMAIN), _text(data, _OPERATOR)),
        inputs=[name.decode() for name in values(data, _INPUT)],
        attributes={_text(attribute, _NAME): attribute for attribute in values(data, _ATTRIBUTE)},
        rest=b"".join(data[field.begin : field.last] for field in fields(data) if field.number not in read),
    )


def _node(node: _Node) -> bytes:
    domain, operator = node.kind
    inputs = b"".join(written(_INPUT, name.encode()) for name in node.inputs)
    attributes = b"".join(written(_ATTRIBUTE, attribute) for attribute in node.attributes.values())
    return inputs + node.rest + written(_OPERATOR, operator.encode()) + attributes + written(_DOMAIN, domain.encode())


def _text(data: bytes, number: int) -> str:
    return b"".join(values(data, number)[-1:]).decode()


def _number(varint: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint))


def _renamed(attribute: bytes, name: str) -> bytes:
    rest = [attribute[field.begin : field.last] for field in fields(attribute) if field.number != _NAME]
    return written(_NAME, name.encode()) + b"".join(rest)
