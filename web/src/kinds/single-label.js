/** One label of several: the most probable one. */

import { byLabel, meanOverSpans, noThresholds } from "./kind.js";

/**
 * Softmax at a temperature.
 * @param {Float32Array} logits
 * @param {number} temperature
 */
function probabilities(logits, temperature) {
  const most = Math.max(...logits);
  const weights = Array.from(logits, (value) => Math.exp((value - most) / temperature));
  const sum = weights.reduce((one, other) => one + other, 0);
  return weights.map((weight) => weight / sum);
}

/** @type {import("./kind.js").Kind} */
export const singleLabel = {
  title: "one label",
  requires: [],
  labels: [2, 10_000],
  minScore: true,
  check: noThresholds,
  thresholds: () => [],
  answer(logits, task, minScore) {
    const own = meanOverSpans(logits);
    const probs = probabilities(own, task.temperature);
    const place = own.indexOf(Math.max(...own));
    const abstained = probs[place] < minScore;
    const best = task.labels[place];
    return { label: abstained ? null : best, best, score: probs[place], ...byLabel(task, probs), abstained };
  },
  margin(logits, task) {
    const [best, second] = probabilities(meanOverSpans(logits), task.temperature).sort((one, other) => other - one);
    return best - second;
  },
};
