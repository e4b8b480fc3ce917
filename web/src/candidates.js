/**
 * The possible answers in a context, as in edgetune_runtime/candidates.py: word pairs of one window, and "no answer".
 */

/** @typedef {import("./words.js").Place} Place */

const MOST_WORDS = 30;

/** The place of a "no answer" row; each window begins with one. @type {Place} */
export const NO_PLACE = [0, 0];

/**
 * @typedef {object} Candidates
 * @property {number[]} logits of all answers; the last is "no answer"
 * @property {(place: number) => Place | null} place of a logit's answer in the text; null is "no answer"
 */

/**
 * The logit of each answer.
 * @param {Float32Array[]} logits of each row: "it begins here", and "it ends here"
 * @param {Place[]} places the places of the rows
 * @returns {Candidates}
 */
export function candidates(logits, places) {
  const isNone = places.map(([, end]) => end === 0);
  const words = [...new Map(places.filter((_, row) => !isNone[row]).map((place) => [place[0], place])).values()];
  words.sort(([one], [other]) => one - other);
  const numbers = new Map(words.map(([begin], number) => [begin, number]));
  const found = new Array(words.length * MOST_WORDS + 1).fill(Number.NEGATIVE_INFINITY);
  const none = found.length - 1;
  found[none] = Math.min(...logits.filter((_, row) => isNone[row]).map(([begins, ends]) => begins + ends));
  for (const [row, [begin]] of places.entries()) {
    const first = numbers.get(begin) ?? 0;
    for (let other = row; other < Math.min(row + MOST_WORDS, places.length) && !isNone[other]; other++) {
      const more = (numbers.get(places[other][0]) ?? 0) - first;
      if (more < 0 || more >= MOST_WORDS) continue;
      const at = first * MOST_WORDS + more;
      found[at] = Math.max(found[at], logits[row][0] + logits[other][1]);
    }
  }
  return {
    logits: found,
    place(at) {
      if (at === none) return null;
      const first = Math.floor(at / MOST_WORDS);
      return [words[first][0], words[first + (at % MOST_WORDS)][1]];
    },
  };
}
