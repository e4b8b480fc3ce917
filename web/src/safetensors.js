/** The container of task files: https://github.com/huggingface/safetensors#format */

import { jsonValue, objectOf, shown } from "./strict.js";

const LARGEST_HEADER = 1_000_000;
/** @type {Record<string, number>} */
const BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F16: 2,
  BF16: 2,
  U16: 2,
  I16: 2,
  F32: 4,
  U32: 4,
  I32: 4,
  F64: 8,
  U64: 8,
  I64: 8,
};

/**
 * @typedef {object} Stored
 * @property {string} dtype
 * @property {number[]} shape
 * @property {Uint8Array} bytes
 */

/**
 * Strings and tensors of a file. Throws an Error if the file is incomplete or not valid.
 * @param {Uint8Array} data
 * @returns {{metadata: Record<string, string>, tensors: Record<string, Stored>}}
 */
export function readSafetensors(data) {
  if (data.length < 8) throw new Error("the header is cut short");
  const length = Number(new DataView(data.buffer, data.byteOffset, 8).getBigUint64(0, true));
  if (length > LARGEST_HEADER || length > data.length - 8) {
    throw new Error(`its header is larger than ${LARGEST_HEADER} bytes, or cut short`);
  }
  const { __metadata__: metadata = {}, ...entries } = objectOf(jsonValue(data.subarray(8, 8 + length)));
  const odd = Object.values(objectOf(metadata)).find((value) => typeof value !== "string");
  if (odd !== undefined) throw new Error(`${shown(odd)}: expected a string`);
  const body = data.subarray(8 + length);
  let end = 0;
  /** @type {Record<string, Stored>} */
  const tensors = {};
  const inOrder = Object.entries(entries).sort(
    ([, one], [, other]) =>
      one?.data_offsets?.[0] - other?.data_offsets?.[0] || one?.data_offsets?.[1] - other?.data_offsets?.[1],
  );
  for (const [name, entry] of inOrder) {
    const { dtype, shape, data_offsets } = objectOf(entry);
    const sizes = Array.isArray(shape) && shape.every((size) => Number.isInteger(size) && size >= 0);
    if (!sizes || !(dtype in BYTES) || !Array.isArray(data_offsets))
      throw new Error(`the tensor ${name} is ${shown(entry)}`);
    const bytes = shape.reduce((/** @type {number} */ one, /** @type {number} */ other) => one * other, BYTES[dtype]);
    if (
      data_offsets.length !== 2 ||
      data_offsets[0] !== end ||
      data_offsets[1] !== end + bytes ||
      end + bytes > body.length
    ) {
      throw new Error(`the tensor ${name} is not where it should be, or cut short`);
    }
    tensors[name] = { dtype, shape, bytes: body.subarray(end, end + bytes) };
    end += bytes;
  }
  if (end !== body.length) throw new Error(`${body.length - end} bytes belong to no tensor`);
  return { metadata, tensors };
}
