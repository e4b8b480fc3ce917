/** The tokens of a piece of a text, and the window of a long text that answers it. */

/** @typedef {import("./text.js").Span} Span */
/** @typedef {import("./words.js").Place} Place */
/** @typedef {[number, number, number]} TokenPlace a token, and its start and end in the text */

/**
 * Pooling → the span to read for a piece, given its first and its last token.
 * @type {Record<string, (first: number, last: number) => Span>}
 */
const SPANS = {
  cls: (first) => [first, first + 1],
  mean: (first, last) => [first, last + 1],
  last: (_, last) => [last, last + 1],
};

/** Poolings for tasks that answer piece by piece. */
export const OF_PIECES = Object.keys(SPANS);

/**
 * The pieces that each window answers, with the spans to read. If several windows contain a whole piece, the window in
 * which it is farthest from an edge answers it, or all of them do.
 * @param {TokenPlace[][]} windows the tokens of the text in each window
 * @param {Place[]} places the places of the pieces, in order
 * @param {string} pooling
 * @param {boolean} allInEach
 * @returns {[piece: number, span: Span][][]}
 */
export function piecesOf(windows, places, pooling, allInEach) {
  const tokens = windows.map((window) => tokensOf(window, places));
  /** @type {Map<number, {more: number, away: number, number: number}>} */
  const best = new Map();
  for (const [number, own] of tokens.entries()) {
    const window = windows[number];
    const left = number ? window[0]?.[0] : Number.NEGATIVE_INFINITY;
    const right = number + 1 < windows.length ? window[window.length - 1]?.[0] : Number.POSITIVE_INFINITY;
    for (const [piece, [first, last]] of own) {
      const [more, away, known] = [last - first, Math.min(first - left, right - last), best.get(piece)];
      if (!known || more > known.more || (more === known.more && away > known.away)) {
        best.set(piece, { more, away, number });
      }
    }
  }
  return tokens.map((own, number) =>
    [...own]
      .filter(([piece, [first, last]]) => {
        const found = best.get(piece);
        return allInEach ? last - first === found?.more : number === found?.number;
      })
      .map(([piece, ends]) => [piece, SPANS[pooling](...ends)]),
  );
}

/**
 * The span to read for "no answer" in a window of a length: the first token, or the last if the pooling reads the last.
 * @param {number} length
 * @param {string} pooling
 * @returns {Span}
 */
export const spanOfNone = (length, pooling) => (pooling === "last" ? [length - 1, length] : [0, 1]);

/**
 * Piece → the first and the last token that contains one of its characters.
 * @param {TokenPlace[]} tokens
 * @param {Place[]} places
 */
function tokensOf(tokens, places) {
  /** @type {Map<number, [first: number, last: number]>} */
  const found = new Map();
  let at = 0;
  for (const [token, begin, end] of tokens) {
    while (at < places.length && places[at][1] <= begin) at++;
    for (let piece = at; piece < places.length && places[piece][0] < end; piece++) {
      found.set(piece, [found.get(piece)?.[0] ?? token, token]);
    }
  }
  return found;
}
