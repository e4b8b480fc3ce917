/**
 * The words of a text with their places, as in edgetune_runtime/words.py. A word is a run of letters, digits and their
 * marks; one character of a script that is written without spaces; or one other visible character. Places are in UTF-16
 * units.
 */

/** @typedef {[number, number]} Place start and end in a text, in UTF-16 units, for `text.slice(start, end)` */

/** Thai, Lao, Tibetan, Myanmar, Khmer, Kana, Han. */
const WITHOUT_SPACES =
  "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff" +
  "\uf900-\ufaff\uff66-\uff9f\u{1b000}-\u{1b16f}\u{20000}-\u{3ffff}]";
const MARKS = "\\p{M}\u{1f3fb}-\u{1f3ff}"; // including skin tones
const FLAGS = "\u{1f1e6}-\u{1f1ff}";
const JOINER = "\u200d";

/** Letters and digits, characters that are words of their own, marks, flags' letters, other visible characters. */
const CLASSES = {
  w: `(?!${WITHOUT_SPACES})[\\p{L}\\p{N}]`,
  c: `(?=${WITHOUT_SPACES})[\\p{L}\\p{N}]`,
  m: `[${MARKS}]`,
  f: `[${FLAGS}]`,
  p: `[^\\p{L}\\p{N}\\p{Z}\\p{Cf}\\p{Cc}\\p{Cs}${MARKS}${FLAGS}]`,
  j: "\\p{Cf}",
  z: JOINER,
};

const WORDS = new RegExp(
  "w(?:w|m|j+(?=w|m))*|(?:p|ff?|c)m*(?:zpm*)*|m+".replace(
    /[a-z]/g,
    (name) => `(?:${CLASSES[/** @type {"w"} */ (name)]})`,
  ),
  "gu",
);

/**
 * The places of a text's words, in order.
 * @param {string} text
 * @returns {Place[]}
 */
export const words = (text) => Array.from(text.matchAll(WORDS), ({ 0: own, index }) => [index, index + own.length]);
