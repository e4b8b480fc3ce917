/** The bank of one task: all its inputs for a graph. */

import { BANK_INPUTS, HEAD, PARTS, POOLINGS, reads } from "./contract.js";
import { lengthsOf } from "./task.js";

/** @param {Iterable<number>} values */
export const int64 = (values) => BigInt64Array.from(values, BigInt);

/**
 * Values and shape of each bank input. The head is empty, because it is applied after the graph.
 * @param {import("./task.js").Task} task
 * @param {Record<string, number>} sizes the backbone's sizes
 * @param {string[]} names the inputs that the graph takes
 * @returns {[string, "float32" | "int64", Float32Array | BigInt64Array, number[]][]}
 */
export function bankOf(task, sizes, names) {
  const lengths = lengthsOf(task);
  /** @type {Record<string, number>} */
  const all = { ...sizes, ...lengths, labels: 0, tasks: 1 };
  /** @type {Record<string, number[]>} */
  const numbers = { position_offset: [task.positionOffset], pooling: [POOLINGS.indexOf(reads(task.pooling)[0])] };
  for (const { mask, length } of PARTS) if (mask) numbers[mask] = new Array(lengths[length]).fill(1);
  return names
    .filter((name) => name in BANK_INPUTS)
    .map((name) => {
      const { dtype, dims } = BANK_INPUTS[name];
      const own = name in HEAD.tensors ? undefined : task.tensors.get(name)?.data;
      const shape = dims.map((dim) => all[dim]);
      return [name, dtype, dtype === "int64" ? int64(numbers[name]) : (own ?? new Float32Array(0)), shape];
    });
}

/**
 * A task's logits for features. Sums are in double precision.
 * @param {Float32Array} features the features of one span
 * @param {import("./task.js").Task} task
 */
export function headLogits(features, task) {
  const weight = /** @type {import("./task.js").TaskTensor} */ (task.tensors.get("head_weight")).data;
  const bias = /** @type {import("./task.js").TaskTensor} */ (task.tensors.get("head_bias")).data;
  const logits = new Float32Array(bias.length);
  for (let label = 0; label < bias.length; label++) {
    let sum = 0;
    for (let place = 0, at = label * features.length; place < features.length; place++, at++) {
      sum += features[place] * weight[at];
    }
    logits[label] = sum + bias[label];
  }
  return logits;
}

/**
 * Logits of pieces, given the logits of their spans. If a pooling reads one span per row of the head, each row uses its
 * own.
 * @param {Float32Array[]} logits
 * @param {import("./task.js").Task} task
 */
export function ofPieces(logits, task) {
  const { length } = reads(task.pooling);
  if (length === 1) return logits;
  return Array.from({ length: logits.length / length }, (_, piece) =>
    Float32Array.from({ length }, (_, row) => logits[piece * length + row][row]),
  );
}
