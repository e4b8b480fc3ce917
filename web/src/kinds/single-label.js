/** One of several labels: the most probable one. */

import { byLabel, meanOverSpans, noThresholds, probabilities, rowPerLabel } from "./kind.js";

/** @type {import("./kind.js").Kind} */
export const singleLabel = {
  title: "one label",
  requires: [],
  labels: [2, 10_000],
  headRows: rowPerLabel,
  minScore: true,
  reading: null,
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
