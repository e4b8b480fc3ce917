/** What every kind of answer says of itself. */

/**
 * A kind of answer: one module per kind, one row per kind in `KINDS`.
 * @typedef {object} Kind
 * @property {string} title what people read on a page
 * @property {string[]} requires what a reader must know to answer tasks of this kind
 * @property {[number, number]} labels fewest and most labels of a task
 * @property {boolean} minScore whether a lowest score means something for its answers
 * @property {(task: import("../task.js").Task) => void} check throws an Error unless the task's settings are sound
 * @property {(task: import("../task.js").Task) => number[]} thresholds for each label the score from which on it
 *   applies; empty if thresholds decide nothing
 * @property {(logits: Float32Array[], task: import("../task.js").Task, minScore: number) => Record<string, any>} answer
 *   the answer's own fields; `abstained` if there is none. The logits of each span
 * @property {(logits: Float32Array[], task: import("../task.js").Task) => number} margin how far logits are from
 *   another answer, from 0 to 1; infinite if never close
 */

/**
 * A text's logits: the mean of those of its spans.
 * @param {Float32Array[]} logits
 */
export function meanOverSpans(logits) {
  if (logits.length === 1) return logits[0];
  return Float32Array.from(logits[0], (_, label) => logits.reduce((sum, row) => sum + row[label], 0) / logits.length);
}

/** @param {import("../task.js").Task} task */
export function noThresholds({ thresholds, kindName }) {
  if (thresholds.length) {
    throw new Error(`${thresholds.length} thresholds: expected none for tasks of the kind '${kindName}'`);
  }
}

/**
 * Label → score, and the scores in the task's order.
 * @param {import("../task.js").Task} task
 * @param {number[]} probs
 */
export const byLabel = (task, probs) => ({
  scores: Object.fromEntries(task.labels.map((label, place) => [label, probs[place]])),
  probs,
});
