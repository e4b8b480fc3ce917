/** Any number of labels, including none: each label has its own threshold. */

import { byLabel, meanOverSpans, rowPerLabel } from "./kind.js";

const DEFAULT_THRESHOLD = 0.5;
const MARGIN_PER_LOGIT = 2 / 3;

/** @type {import("./kind.js").Kind} */
export const multiLabel = {
  title: "any number of labels",
  requires: ["kind:multi-label"],
  labels: [1, 10_000],
  headRows: rowPerLabel,
  minScore: true,
  reading: null,
  check({ thresholds, labels }) {
    if (thresholds.length && thresholds.length !== labels.length) {
      throw new Error(`${thresholds.length} thresholds for ${labels.length} labels: expected one per label`);
    }
    const odd = thresholds.find((value) => !(value > 0 && value < 1));
    if (odd !== undefined) throw new Error(`a threshold of ${odd}: expected numbers above 0 and below 1`);
  },
  thresholds: (task) => (task.thresholds.length ? task.thresholds : task.labels.map(() => DEFAULT_THRESHOLD)),
  answer(logits, task, minScore) {
    const probs = Array.from(meanOverSpans(logits), (value) => 1 / (1 + Math.exp(-value / task.temperature)));
    const limits = multiLabel.thresholds(task);
    const applies = (/** @type {string} */ _, /** @type {number} */ place) =>
      probs[place] >= limits[place] && probs[place] >= minScore;
    return { labels: task.labels.filter(applies), ...byLabel(task, probs), abstained: false };
  },
  margin(logits, task) {
    const limits = multiLabel.thresholds(task);
    const away = Array.from(meanOverSpans(logits), (value, place) =>
      Math.abs(value / task.temperature - Math.log(limits[place] / (1 - limits[place]))),
    );
    return Math.min(...away) * MARGIN_PER_LOGIT;
  },
};
