/** Answers to questions: a stretch of the context, which is the second text of a pair, or no answer. */

import { candidates } from "../candidates.js";
import { words } from "../words.js";
import { noThresholds, probabilities } from "./kind.js";

/** @type {import("./kind.js").Kind} */
export const spans = {
  title: "an answer in a text",
  requires: ["kind:spans"],
  labels: [1, 1],
  headRows: () => 2,
  minScore: true,
  reading: { pieces: words, second: true, orNone: true },
  check: noThresholds,
  thresholds: () => [],
  answer(logits, task, minScore, { text, places }) {
    const found = candidates(logits, places);
    const scores = probabilities(found.logits, task.temperature);
    const best = found.logits.reduce((one, value, place) => (value > found.logits[one] ? place : one), 0);
    const abstained = scores[best] < minScore;
    const [start, end] = (!abstained && found.place(best)) || [null, null];
    return {
      answer: start === null ? null : text.slice(start, end),
      start,
      end,
      score: scores[best],
      no_answer: scores[scores.length - 1],
      abstained,
    };
  },
  margin(logits, task, { places }) {
    let [best, second] = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (const score of probabilities(candidates(logits, places).logits, task.temperature)) {
      if (score > best) [best, second] = [score, best];
      else if (score > second) second = score;
    }
    return best - second;
  },
};
