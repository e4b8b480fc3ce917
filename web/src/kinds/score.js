/** A number, such as the similarity of two sentences: the logit itself. */

import { meanOverSpans, noThresholds, rowPerLabel } from "./kind.js";

/** @type {import("./kind.js").Kind} */
export const score = {
  title: "a number",
  requires: ["kind:score"],
  labels: [1, 1],
  headRows: rowPerLabel,
  minScore: false,
  reading: null,
  check: noThresholds,
  thresholds: () => [],
  answer: (logits) => ({ score: meanOverSpans(logits)[0], abstained: false }),
  margin: () => Number.POSITIVE_INFINITY,
};
