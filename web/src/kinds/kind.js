/** The interface of every kind of answer. */

/**
 * A kind of answer: one module and one entry in `KINDS` per kind.
 * @typedef {object} Kind
 * @property {string} title its title on pages
 * @property {string[]} requires the requirements that a reader of such a task must support
 * @property {[number, number]} labels minimum and maximum number of labels of a task
 * @property {(labels: number) => number} headRows number of rows of the head of a task with this many labels
 * @property {boolean} minScore whether its answers support a lowest score
 * @property {Reading | null} reading how it reads texts piece by piece; null if it answers a text as a whole
 * @property {(task: import("../task.js").Task) => void} check throws an Error unless the task's settings are valid
 * @property {(task: import("../task.js").Task) => number[]} thresholds for each label the lowest score at
 *   which it applies; empty for kinds without thresholds
 * @property {(logits: Float32Array[], task: Task, minScore: number, read: Pieces) => Record<string, any>} answer the
 *   answer's own fields, given the logits of each span; with `abstained` if it is withheld
 * @property {(logits: Float32Array[], task: Task, read: Pieces) => number} margin distance of logits from another
 *   answer, from 0 to 1; infinite if no call is close
 */

/** @typedef {import("../task.js").Task} Task */

/**
 * @typedef {object} Reading
 * @property {(text: string) => import("../words.js").Place[]} pieces the places of a text that features are read from
 * @property {boolean} second whether the pieces are in the second text of a pair instead of the first
 * @property {boolean} orNone whether each window answers all its pieces and, before them, "no answer"
 *
 * @typedef {object} Pieces
 * @property {string} text the text with the pieces; empty if a text is answered as a whole
 * @property {import("../words.js").Place[]} places the places of the pieces that were read, of all windows
 */

/**
 * A text's logits: the mean over its spans.
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

/** For most kinds, each label has one row. @param {number} labels */
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
