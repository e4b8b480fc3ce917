/** Entities in a text: each word has a tag, and runs of tags are entities, as in edgetune_runtime/kinds/tokens.py. */

import { words } from "../words.js";
import { noThresholds, probabilities } from "./kind.js";

/**
 * @typedef {object} Entity
 * @property {string} label
 * @property {number} start in UTF-16 units: `text.slice(start, end)` is the entity
 * @property {number} end
 * @property {string} text the text at that place
 * @property {number} score mean probability of its words' tags
 */

const OUTSIDE = 0; // the label at index n has the rows 2n + 1, "begins", and 2n + 2, "inside"
const WORDS_PER_CLOSE_ONE = 64;

/** @type {import("./kind.js").Kind} */
export const tokens = {
  title: "entities in a text",
  requires: ["kind:tokens"],
  labels: [1, 4_999],
  headRows: (labels) => 1 + 2 * labels,
  minScore: true,
  reading: { pieces: words, second: false, orNone: false },
  check: noThresholds,
  thresholds: () => [],
  answer(logits, task, minScore, { text, places }) {
    const tags = decode(logits);
    /** @type {Entity[]} */
    const entities = [];
    for (let begin = 0, end = 0; begin < tags.length; begin = end) {
      end = begin + 1;
      if (tags[begin] % 2 === 0) continue;
      while (tags[end] === tags[begin] + 1) end++;
      const scores = logits.slice(begin, end).map((own, k) => probabilities(own, task.temperature)[tags[begin + k]]);
      const score = scores.reduce((sum, one) => sum + one, 0) / scores.length;
      const [start, stop] = [places[begin][0], places[end - 1][1]];
      const label = task.labels[(tags[begin] - 1) / 2];
      if (score >= minScore) entities.push({ label, start, end: stop, text: text.slice(start, stop), score });
    }
    return { entities, abstained: false };
  },
  margin(logits, task) {
    if (!logits.length) return Number.POSITIVE_INFINITY;
    const leads = logits.map((own) => {
      const [best, second] = probabilities(own, task.temperature).sort((one, other) => other - one);
      return best - second;
    });
    return leads.sort((one, other) => one - other)[Math.floor(leads.length / WORDS_PER_CLOSE_ONE)];
  },
};

/**
 * The most probable sequence of word tags, as rows of the head, in which "inside" only follows an entity that began.
 * @param {Float32Array[]} logits
 */
function decode(logits) {
  const tags = logits.map((own) => own.indexOf(Math.max(...own)));
  const isInside = (/** @type {number} */ tag) => tag !== OUTSIDE && tag % 2 === 0;
  const broken = tags.some((tag, word) => isInside(tag) && ![tag, tag - 1].includes(tags[word - 1] ?? OUTSIDE));
  return broken ? mostProbable(logits) : tags;
}

/** Viterbi's algorithm. @param {Float32Array[]} logits */
function mostProbable(logits) {
  const inside = Array.from({ length: (logits[0].length - 1) / 2 }, (_, label) => 2 * label + 2);
  const highest = (/** @type {number[]} */ values) => values.indexOf(Math.max(...values));
  let best = Array.from(logits[0]);
  for (const row of inside) best[row] = Number.NEGATIVE_INFINITY;
  const cameFrom = logits.slice(1).map((own) => {
    const before = new Array(own.length).fill(highest(best));
    for (const row of inside) before[row] = best[row] >= best[row - 1] ? row : row - 1;
    best = before.map((row, k) => best[row] + own[k]);
    return before;
  });
  const tags = [highest(best)];
  for (const before of cameFrom.reverse()) tags.unshift(before[tags[0]]);
  return tags;
}
