/**
 * Read the necessary parts of an ONNX file without a library: its initializers, and the files that it names.
 * https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 */

import { fromUtf8, joined } from "./bytes.js";

const GRAPH = 7;
const INITIALIZER = 5;
const NAME = 8;

/** Message → numbers of its fields that lead to `external_data`, and their messages. @type {Record<string, any>} */
const CHILDREN = {
  Model: { 7: "Graph", 20: "Training", 25: "Function" },
  Training: { 1: "Graph", 2: "Graph" },
  Function: { 7: "Node", 11: "Attribute" },
  Graph: { 1: "Node", 5: "Tensor", 15: "Sparse" },
  Node: { 5: "Attribute" },
  Attribute: { 5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse" },
  Sparse: { 1: "Tensor", 2: "Tensor" },
  Tensor: { 13: "Entry" },
};

/**
 * The fields of a message. `body` is the contents of a length-delimited field, `raw` the whole field.
 * @param {Uint8Array} bytes
 */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let unit = 1; ; unit *= 128) {
      if (at >= bytes.length || unit > 2 ** 63) throw new Error("a number without end");
      const byte = bytes[at++];
      value += (byte & 127) * unit;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const start = at;
    const key = varint();
    const type = key % 8;
    let length = 0;
    if (type === 0) varint();
    else if (type === 1) length = 8;
    else if (type === 2) length = varint();
    else if (type === 5) length = 4;
    else throw new Error(`a field of wire type ${type}`);
    if (length > bytes.length - at) throw new Error("a field goes past its message");
    const body = type === 2 ? bytes.subarray(at, at + length) : null;
    at += length;
    yield { number: Math.floor(key / 8), body, raw: bytes.subarray(start, at) };
  }
}

/**
 * The graph without the defaults of some of its inputs. JavaScript's onnxruntime cannot feed an input with a default:
 * Node silently ignores the feed, and browsers reject it.
 * @param {Uint8Array} model
 * @param {Set<string>} names
 */
export function withoutDefaults(model, names) {
  /** @type {Uint8Array[]} */
  const kept = [];
  for (const field of fields(model)) {
    if (field.number !== GRAPH || !field.body) {
      kept.push(field.raw);
      continue;
    }
    const graph = [];
    for (const inner of fields(field.body)) {
      if (inner.number === INITIALIZER && inner.body && names.has(nameOf(inner.body))) continue;
      graph.push(inner.raw);
    }
    let rest = graph.reduce((sum, part) => sum + part.length, 0);
    const length = [];
    for (; rest > 127; rest = Math.floor(rest / 128)) length.push((rest % 128) + 128);
    kept.push(Uint8Array.of(GRAPH * 8 + 2, ...length, rest), ...graph);
  }
  return joined(kept);
}

/** @param {Uint8Array} tensor */
function nameOf(tensor) {
  let name = "";
  for (const { number, body } of fields(tensor)) if (number === NAME && body) name = fromUtf8(body);
  return name;
}

/**
 * All files that a graph's tensors name, including tensors in subgraphs.
 * @param {Uint8Array} model
 * @returns {Set<string>}
 */
export function externalFiles(model) {
  const found = new Set();
  /** @type {[string, Uint8Array][]} */
  const pending = [["Model", model]];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const [message, bytes] = next;
    const inner = [...fields(bytes)];
    if (message === "Entry") {
      const text = (/** @type {number} */ wanted) => {
        const body = inner.findLast(({ number }) => number === wanted)?.body;
        return body ? fromUtf8(body) : "";
      };
      if (text(1) === "location") found.add(text(2));
      continue;
    }
    for (const { number, body } of inner) {
      const child = CHILDREN[message][number];
      if (child && body) pending.push([child, body]);
    }
  }
  return found;
}
