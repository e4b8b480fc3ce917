/**
 * The places of tokens in a text, as in the Rust library tokenizers. The JavaScript library does not provide them, so
 * they are followed through its steps: added tokens, normalizer, pre-tokenizer, model. Positions are in UTF-16 units.
 */

import { TextError } from "./errors.js";

/** @typedef {[number, number]} Range */
/** @typedef {{symbol: string, range: Range}} Unit a character, or a byte as byte-level tokenizers write it, and its place */

const MOST_CELLS = 4_000_000;
const SPACES = /^[\s\u2581\u0120]$/u;

/**
 * @param {any} tokenizer the tokenizer from @huggingface/tokenizers
 * @param {any} json its tokenizer.json
 * @param {string} text
 * @param {string[]} tokens the tokens of the text
 * @param {{prefixSpace: boolean} | null} trims
 * @returns {Range[]}
 */
export function offsetsOf(tokenizer, json, text, tokens, trims) {
  const byteLevel = typesOf(json.pre_tokenizer).includes("ByteLevel");
  /** @type {{token: string, range: Range}[]} */
  const found = [];
  for (const section of sections(tokenizer, tokenizer.splitter_unnormalized, charactersOf(text))) {
    if (section.added) {
      found.push({ token: section.added, range: rangeOf(section.units) });
      continue;
    }
    const normalized = normalize(tokenizer.normalizer, section.units);
    for (const part of sections(tokenizer, tokenizer.splitter_normalized, normalized)) {
      if (part.added) found.push({ token: part.added, range: rangeOf(part.units) });
      else found.push(...tokensOf(tokenizer, json, part.units, section.index, byteLevel));
    }
  }
  if (found.length !== tokens.length || found.some(({ token }, place) => token !== tokens[place])) {
    throw new TextError(
      "where the tokens of a text lie is not known, and it has to be cut inside of its template: shorten the text, or " +
        "bring a tokenizer that has offsets",
    );
  }
  return found.map(({ token, range }, place) =>
    trims ? trimmed(token, range, trims.prefixSpace && place === 0) : range,
  );
}

/**
 * @param {any} entry an entry of tokenizer.json
 * @returns {string[]}
 */
const typesOf = (entry) => (entry ? [entry.type, ...(entry.pretokenizers ?? []).flatMap(typesOf)] : []);

/**
 * @param {string} text
 * @returns {Unit[]}
 */
function charactersOf(text) {
  let end = 0;
  return [...text].map((symbol) => {
    end += symbol.length;
    return { symbol, range: [end - symbol.length, end] };
  });
}

/** @param {Unit[]} units */
const textOf = (units) => units.map(({ symbol }) => symbol).join("");

/**
 * @param {Unit[]} units
 * @returns {Range}
 */
const rangeOf = (units) => [units[0].range[0], units[units.length - 1].range[1]];

/**
 * Split a text into added tokens and the parts between them.
 * @param {any} tokenizer
 * @param {any} splitter
 * @param {Unit[]} units
 */
function sections(tokenizer, splitter, units) {
  const added = tokenizer.added_tokens_map;
  /** @type {string[]} */
  const texts = splitter.split(textOf(units));
  let end = 0;
  return texts.flatMap((text, index) => {
    const length = [...text].length;
    end += length;
    let own = units.slice(end - length, end);
    if (added.has(text)) return [{ added: added.get(text).content, units: own, index }];
    if (added.get(texts[index + 1])?.lstrip) own = own.slice(0, [...text.trimEnd()].length);
    if (added.get(texts[index - 1])?.rstrip) own = own.slice(own.length - [...textOf(own).trimStart()].length);
    return own.length ? [{ added: null, units: own, index }] : [];
  });
}

/**
 * Normalize a text; each resulting character has the place that it comes from.
 * @param {((text: string) => string) | null} normalizer
 * @param {Unit[]} units
 * @returns {Unit[]}
 */
function normalize(normalizer, units) {
  if (!normalizer) return units;
  const whole = normalizer(textOf(units));
  /** @type {Map<string, string[]>} */
  const kept = new Map();
  const made = (/** @type {string} */ text) => {
    const known = kept.get(text) ?? [...normalizer(text)];
    kept.set(text, known);
    return known;
  };
  /** @type {Unit[]} */
  const found = [];
  for (let at = 0, end = 1; at < units.length; at = end++) {
    while (end < units.length && /^[\p{M}\u1160-\u11ff]$/u.test(units[end].symbol)) end++; // these join the one before
    const cluster = units.slice(at, end);
    const apart = cluster.flatMap((unit) => made(unit.symbol).map((symbol) => ({ symbol, range: unit.range })));
    const symbols = cluster.length > 1 ? made(textOf(cluster)) : [];
    if (!symbols.length || symbols.join("") === textOf(apart)) found.push(...apart);
    else {
      // A composed character has the place of its first character.
      const gone = Math.max(0, cluster.length - symbols.length);
      const place = (/** @type {number} */ k) => Math.min(k && k + gone, cluster.length - 1);
      found.push(...symbols.map((symbol, k) => ({ symbol, range: cluster[place(k)].range })));
    }
  }
  return textOf(found) === whole ? found : aligned(found, [...whole]);
}

/**
 * Align symbols with equal symbols to find their places, for normalizers that look at more than one character.
 * @param {Unit[]} units
 * @param {string[]} symbols
 * @returns {Unit[]}
 */
function aligned(units, symbols) {
  let head = 0;
  while (head < Math.min(units.length, symbols.length) && units[head].symbol === symbols[head]) head++;
  let tail = 0;
  const most = Math.min(units.length, symbols.length) - head;
  while (tail < most && units[units.length - 1 - tail].symbol === symbols[symbols.length - 1 - tail]) tail++;
  const [rows, columns] = [units.length - head - tail, symbols.length - head - tail];
  if (rows * columns > MOST_CELLS) {
    throw new TextError("where the tokens of a text lie is not known: it changes too much when it is normalized");
  }
  // The longest common subsequence
  const width = columns + 1;
  const common = new Uint16Array((rows + 1) * width);
  for (let row = rows - 1; row >= 0; row--) {
    for (let column = columns - 1; column >= 0; column--) {
      common[row * width + column] =
        units[head + row].symbol === symbols[head + column]
          ? common[(row + 1) * width + column + 1] + 1
          : Math.max(common[(row + 1) * width + column], common[row * width + column + 1]);
    }
  }
  const found = units.slice(0, head);
  for (let row = 0, column = 0; column < columns; ) {
    const same = row < rows && units[head + row].symbol === symbols[head + column];
    const skipped = !same && row < rows && common[(row + 1) * width + column] >= common[row * width + column + 1];
    const removed = skipped && rows - row > columns - column;
    if (removed) row++;
    else {
      const beside = units[Math.min(head + row, units.length - 1)]; // an inserted symbol has the place of the next one
      found.push({ symbol: symbols[head + column], range: beside.range });
      column++;
      if (same || skipped) row++;
    }
  }
  return [...found, ...units.slice(units.length - tail)];
}

/**
 * @param {any} tokenizer
 * @param {any} json
 * @param {Unit[]} units
 * @param {number} index the index of the section
 * @param {boolean} byteLevel
 */
function tokensOf(tokenizer, json, units, index, byteLevel) {
  const text = textOf(units);
  /** @type {string[]} */
  const pieces = tokenizer.pre_tokenizer ? tokenizer.pre_tokenizer(text, { section_index: index }) : [text];
  const stream = byteLevel ? units.flatMap(bytesOf) : units;
  let at = 0;
  return pieces.flatMap((piece) => {
    /** @type {Unit[]} */
    const own = [];
    for (const symbol of piece) {
      while (at < stream.length && !isSame(symbol, stream[at].symbol) && !SPACES.test(symbol)) at++;
      const same = at < stream.length && isSame(symbol, stream[at].symbol);
      const beside = stream[Math.min(at, stream.length - 1)]; // an inserted space has the place of the next symbol
      own.push({ symbol, range: beside.range });
      if (same) at++;
    }
    return placed(tokenizer.model([piece]), own, json.model, tokenizer.model.unk_token);
  });
}

/**
 * @param {string} one a symbol of a piece
 * @param {string} other a symbol of the text
 */
const isSame = (one, other) => one === other || (one === "\u2581" && other === " ");

/**
 * A character as the symbols for its bytes in byte-level tokenizers.
 * @param {Unit} unit
 * @returns {Unit[]}
 */
const bytesOf = ({ symbol, range }) =>
  Array.from(new TextEncoder().encode(symbol), (byte) => ({ symbol: BYTE_SYMBOLS[byte], range }));

const BYTE_SYMBOLS = (() => {
  let more = 256;
  const isShown = (/** @type {number} */ byte) =>
    (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || (byte > 173 && byte < 256);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isShown(byte) ? byte : more++));
})();

/**
 * The tokens of a piece with their places.
 * @param {string[]} tokens
 * @param {Unit[]} units
 * @param {any} model its entry in tokenizer.json
 * @param {string} unknown
 */
function placed(tokens, units, model, unknown) {
  const symbols = units.map(({ symbol }) => symbol);
  let at = 0;
  let left = 0; // remaining bytes of a character that is written as bytes
  return tokens.map((token, place) => {
    let surface = token;
    const prefix = model.continuing_subword_prefix;
    if (prefix && place && surface.startsWith(prefix)) surface = surface.slice(prefix.length);
    if (model.end_of_word_suffix && place === tokens.length - 1 && surface.endsWith(model.end_of_word_suffix)) {
      surface = surface.slice(0, -model.end_of_word_suffix.length);
    }
    let length = [...surface].length;
    const is = symbols.slice(at, at + length).join("") === surface;
    if (!is && /^<0x[0-9A-F]{2}>$/.test(token) && model.byte_fallback) {
      if (!left) left = new TextEncoder().encode(symbols[at] ?? "").length;
      const { range } = units[Math.min(at, units.length - 1)];
      if (--left === 0) at++;
      return { token, range };
    }
    if (!is && token === unknown) {
      // One token per word, or one per character
      length = tokens.length === 1 ? units.length - at : 1;
    }
    const own = units.slice(at, at + length);
    at += length;
    return { token, range: rangeOf(own.length ? own : units.slice(-1)) };
  });
}

/**
 * @param {string} token
 * @param {Range} range
 * @param {boolean} keepsOne whether the first space was inserted, and is not part of the text
 * @returns {Range}
 */
function trimmed(token, [begin, end], keepsOne) {
  const symbols = [...token];
  const before = symbols.findIndex((symbol) => !SPACES.test(symbol));
  const behind = symbols.findLastIndex((symbol) => !SPACES.test(symbol));
  const leading = before < 0 ? symbols.length : before;
  const trailing = symbols.length - 1 - behind;
  const first = Math.min(begin + Math.max(0, leading - Number(keepsOne && leading > 0)), end);
  return [first, trailing && end >= trailing ? Math.max(end - trailing, first) : end];
}
