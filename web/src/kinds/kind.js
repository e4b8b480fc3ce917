/** What every kind of answer says of itself. */

/**
 * A kind of answer: one module per kind, one row per kind in `KINDS`.
 * @typedef {object} Kind
 * @property {string} title what people read on a page
 * @property {string[]} requires what a reader must know to answer tasks of this kind
 * @property {[number, number]} labels fewest and most labels of a task
 * @property {(labels: number) => number} headRows rows of the head of a task with so many labels
 * @property {boolean} minScore whether a lowest score means something for its answers
 * @property {Reading | null} reading how it reads texts that it answers piece by piece; null if it answers them whole
 * @property {(task: import("../task.js").Task) => void} check throws an Error unless the task's settings are sound
 * @property {(task: import("../task.js").Task) => number[]} thresholds for each label the score from which on it
 *   applies; empty if thresholds decide nothing
 * @property {(logits: Float32Array[], task: Task, minScore: number, read: Pieces) => Record<string, any>} answer the
 *   answer's own fields; `abstained` if there is none. The logits of each span
 * @property {(logits: Float32Array[], task: Task, read: Pieces) => number} margin how far logits are from another
 *   answer, from 0 to 1; infinite if never close
 */

/** @typedef {import("../task.js").Task} Task */

/**
 * @typedef {object} Reading
 * @property {(text: string) => import("../words.js").Place[]} pieces the places of a text that features are read from
 * @property {boolean} second whether the second text of a pair has the pieces, and not the first
 * @property {boolean} orNone whether each window answers all pieces that it has and, before them, "no answer"
 *
 * @typedef {object} Pieces
 * @property {string} text that the pieces are in; empty if a text is answered whole
 * @property {import("../words.js").Place[]} places of the pieces that were read, of all windows
 */

/**
 * A text's logits: the mean of those of its spans.
 * @param {Float32Array[]} logits
 */
export function meanOverSpans(logits) {
  if (logits.length === 1) return logits[0];
  return Float32Array.from(logits[0], (_, label) => logits.reduce((sum, row) => sum + row[label], 0) / logits.length);
}

/**
 * Softmax at a temperature.
 * @param {Float32Array | number[]} logits
 * @param {number} temperature
 * @returns {number[]}
 */
export function probabilities(logits, temperature) {
  const values = Array.from(logits);
  const most = values.reduce((one, other) => Math.max(one, other));
  const weights = values.map((value) => Math.exp((value - most) / temperature));
  const sum = weights.reduce((one, other) => one + other, 0);
  return weights.map((weight) => weight / sum);
}

/** @param {Task} task */
export function noThresholds({ thresholds, kindName }) {
  if (thresholds.length) {
    throw new Error(`${thresholds.length} thresholds: expected none for tasks of the kind '${kindName}'`);
  }
}

/** Of most kinds, a label has one row. @param {number} labels */
export const rowPerLabel = (labels) => labels;

/**
 * Label → score, and the scores in the task's order.
 * @param {Task} task
 * @param {number[]} probs
 */
export const byLabel = (task, probs) => ({
  scores: Object.fromEntries(task.labels.map((label, place) => [label, probs[place]])),
  probs,
});
