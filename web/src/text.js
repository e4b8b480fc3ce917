/** Convert text to a backbone's input: token ids, segments, and the spans that features are read from. */

import { NO_PLACE } from "./candidates.js";
import { reads } from "./contract.js";
import { BundleError, TextError } from "./errors.js";
import { Filled } from "./filled.js";
import { piecesOf, spanOfNone } from "./pieces.js";

/** @typedef {string | [string, string]} Text a text or, for tasks that take pairs, two texts */
/** @typedef {import("./task.js").Task} Task */
/** @typedef {import("./tokenizer.js").Encoded} Encoded */
/** @typedef {import("./words.js").Place} Place */
/** @typedef {[number, number]} Span start and end in tokens of the text; a soft prompt has negative positions */

/**
 * A text, or a window of it, as a backbone reads it.
 * @typedef {object} Tokens
 * @property {number[]} ids token ids, including special tokens
 * @property {number[]} typeIds 1 for tokens of the second text of a pair, otherwise 0
 * @property {Span[]} spans
 * @property {Place[]} places the places of the pieces that the spans read; empty if the text is answered as a whole
 */

/**
 * @typedef {object} Read
 * @property {Tokens[]} windows one window, or several for a long text
 * @property {boolean} truncated whether the end of the text was cut off
 * @property {string} text the text with the pieces; empty if it is answered as a whole
 * @property {Place[]} places the places of the pieces of all windows
 */

/**
 * The part of a text or a pair that is read at once.
 * @typedef {object} Part
 * @property {Encoded[]} sides one text, or two that the tokenizer joins
 * @property {Filled | null} filled the texts in it, if they are in a template
 * @property {boolean} isCut whether the end of its text was cut off
 */

/** Puts texts into their tasks' templates, cuts them to the tasks' lengths, and never pads. */
export class TextEncoder {
  /**
   * @param {import("./tokenizer.js").TextTokenizer} tokenizer
   * @param {import("./manifest.js").Manifest} manifest
   * @param {number} vocabularySize number of token ids that the backbone knows
   */
  constructor(tokenizer, { maxPositions, maskToken }, vocabularySize) {
    this.tokenizer = tokenizer;
    this.maxPositions = maxPositions;
    this.maskToken = maskToken;
    this.maskId = maskToken ? tokenizer.idOf(maskToken) : undefined;
    this.vocabularySize = vocabularySize;
    if (tokenizer.special(false) >= maxPositions) {
      throw new BundleError(
        `tokenizer.json adds ${tokenizer.special(false)} special tokens to a text, and the backbone has ${maxPositions} ` +
          "positions: export the bundle again",
      );
    }
  }

  /**
   * @param {Text} text
   * @param {Task} task
   * @returns {Read}
   */
  read(text, task) {
    const mask = this.maskToken;
    let texts = typeof text === "string" ? [text] : [...text];
    if (mask && task.pooling === "mask") texts = texts.map((one) => one.replaceAll(mask, " "));
    const joins = task.pairs && !task.template.includes("{text_pair}");
    const room = Math.max(1, Math.min(task.maxLength, this.#positions(task)) - this.tokenizer.special(joins));
    const { long, parts, truncated } = joins ? this.#joined(texts, task, room) : this.#filled(texts, task, room);
    const finished = parts.map(({ sides }) => this.#finished(sides, task));
    for (const { tokens } of finished) this.#check(tokens.ids, task);
    const windows = finished.map(({ tokens }) => tokens);
    const read = { windows, truncated: truncated && !long, text: "", places: [] };
    const { reading } = task.kind;
    if (!reading) return read;
    const tokens = parts.map((part, place) => tokensOf(part, finished[place].sources, reading.second));
    return byPiece(read, parts, tokens, texts[Number(reading.second)], task);
  }

  /**
   * Two texts that the tokenizer joins.
   * @param {string[]} texts
   * @param {Task} task
   * @param {number} room
   */
  #joined(texts, task, room) {
    const own = texts.map((one) => this.#encode(one));
    const lengths = own.map(({ ids }) => ids.length);
    const truncated = lengths[0] + lengths[1] > room;
    if (!truncated || task.longTexts !== "windows") {
      const kept = longestFirst(lengths, room);
      const sides = own.map((one, place) => cutOut(one, 0, kept[place]));
      return { long: false, truncated, parts: [{ sides, filled: null, isCut: false }] };
    }
    // The shorter side (or the side without pieces, if each window answers all pieces) takes at most half of every
    // window.
    const fixed = sideOfAll(task);
    const longer = fixed ?? Number(lengths[1] >= lengths[0]);
    const half = Math.floor(room / 2);
    const other = cutOut(own[1 - longer], 0, half);
    const isCut = fixed !== null && lengths[1 - longer] > half;
    const parts = windowPlaces(lengths[longer], room - other.ids.length, task.stride).map(([begin, end]) => {
      const part = cutOut(own[longer], begin, end);
      return { sides: longer ? [other, part] : [part, other], filled: null, isCut };
    });
    return { long: true, truncated, parts };
  }

  /**
   * Texts in a template.
   * @param {string[]} texts
   * @param {Task} task
   * @param {number} room
   */
  #filled(texts, task, room) {
    const filled = Filled.of(task, this.maskToken, texts);
    const encoded = this.#encode(filled.text());
    const truncated = encoded.ids.length > room;
    const parts = truncated && task.longTexts === "windows" ? this.#windows(filled, encoded, task, room) : [];
    if (parts.length) return { long: true, truncated, parts };
    return { long: false, truncated, parts: [this.#cut(filled, encoded, room)] };
  }

  /**
   * A long text in windows, each with the template.
   * @param {Filled} filled
   * @param {Encoded} encoded
   * @param {Task} task
   * @param {number} room
   */
  #windows(filled, encoded, task, room) {
    const { ids } = encoded;
    if (!filled.goesOn && !filled.pieces[0]) {
      return windowPlaces(ids.length, room, task.stride).map(([begin, end]) => {
        return { sides: [cutOut(encoded, begin, end)], filled, isCut: false };
      });
    }
    const slots = filled.places();
    const lengths = slots.map(({ slot }) => [...filled.texts[slot]].length);
    const longest = slots[lengths.indexOf(Math.max(...lengths))];
    const fixed = sideOfAll(task);
    const { slot, begin, end } = slots.find((own) => own.slot === fixed) ?? longest;
    const inside = encoded.offsets().filter(([first, last]) => first >= begin && last <= end);
    return windowPlaces(inside.length, room - (ids.length - inside.length), task.stride).map(([first, last]) => {
      // A token at an end may contain a character of the template, such as the space before the text.
      const start = first ? inside[first][0] - begin : 0;
      const part = filled.texts[slot].slice(start, last < inside.length ? inside[last - 1][1] - begin : undefined);
      const window = filled.with(slot, part, start);
      return this.#cut(window, this.#encode(window.text()), room);
    });
  }

  /**
   * Cut the ends of the texts, not the template around them.
   * @param {Filled} filled
   * @param {Encoded} encoded
   * @param {number} room
   * @returns {Part}
   */
  #cut(filled, encoded, room) {
    const isCut = encoded.ids.length > room;
    while (filled.goesOn && encoded.ids.length > room && filled.texts.some(Boolean)) {
      const offsets = encoded.offsets();
      const slots = filled.places();
      const ends = slots.map(({ begin, end }) =>
        offsets.filter(([first, last]) => first >= begin && last <= end).map(([, last]) => last),
      );
      const own = ends.map((one) => one.length);
      const sum = own.reduce((one, other) => one + other, 0);
      const kept = longestFirst(own, Math.max(0, sum - (encoded.ids.length - room)));
      let next = filled;
      for (const [place, { slot, begin }] of slots.entries()) {
        const text = filled.texts[slot];
        const keep = kept[place];
        if (keep === 0 || own[place] === 0) next = next.with(slot, "");
        else if (keep < own[place]) {
          next = next.with(slot, text.slice(0, Math.min(ends[place][keep - 1] - begin, lastCharacter(text))));
        }
      }
      // Each iteration cuts a text, or drops all of them.
      const same = next.texts.every((text, place) => text === filled.texts[place]);
      filled = same ? filled.texts.reduce((one, _, slot) => one.with(slot, ""), filled) : next;
      encoded = this.#encode(filled.text());
    }
    return { sides: [cutOut(encoded, 0, room)], filled, isCut };
  }

  /**
   * The tokens of a text. Their places are computed only once.
   * @param {string} text
   * @returns {Encoded}
   */
  #encode(text) {
    const { ids, offsets } = this.tokenizer.encode(text);
    /** @type {[number, number][] | undefined} */
    let found;
    const kept = () => {
      found ??= offsets();
      return found;
    };
    return { ids, offsets: kept };
  }

  /**
   * @param {Encoded[]} sides
   * @param {Task} task
   * @returns {{tokens: Tokens, sources: import("./tokenizer.js").TokenSource[]}}
   */
  #finished(sides, task) {
    let { ids, typeIds, sources } = this.tokenizer.finish(...sides.map((one) => one.ids));
    if (!ids.length) [ids, typeIds, sources] = [[0], [0], [null]]; // a run needs at least one token
    const segments = task.pairs ? typeIds : ids.map(() => 0);
    return { tokens: { ids, typeIds: segments, spans: [this.#span(ids, task)], places: [] }, sources };
  }

  /**
   * The span that a task's pooling reads.
   * @param {number[]} ids
   * @param {Task} task
   * @returns {Span}
   */
  #span(ids, { pooling, promptLength }) {
    const mask = this.maskId === undefined ? 0 : Math.max(0, ids.indexOf(this.maskId));
    /** @type {Record<string, Span>} */
    const spans = {
      cls: [0, 1],
      classifier: [0, 1],
      last: [ids.length - 1, ids.length],
      mask: [mask, mask + 1],
      pooler: [-promptLength, 1 - promptLength], // the very first token, which belongs to a soft prompt if there is one
    };
    return spans[pooling] ?? [0, ids.length];
  }

  /**
   * @param {number[]} ids
   * @param {Task} task
   */
  #check(ids, task) {
    const largest = ids.reduce((one, other) => Math.max(one, other), 0);
    const known = ids.every((id) => Number.isInteger(id) && id >= 0);
    if (!known || largest >= this.vocabularySize) {
      throw new TextError(
        `tokenizer.json gives the token id ${known ? largest : "of no token"}, and the backbone knows ` +
          `${this.vocabularySize}: export the bundle again`,
      );
    }
    if (ids.length > this.#positions(task)) {
      throw new TextError(
        `tokenizer.json gives ${ids.length} tokens where task '${task.name}' leaves ${this.#positions(task)} positions: ` +
          "export the bundle again, or train the task with a shorter prompt",
      );
    }
  }

  /** Number of positions that a task leaves for the text. @param {Task} task */
  #positions({ positionOffset, promptLength }) {
    return this.maxPositions - Math.max(positionOffset, promptLength);
  }
}

/**
 * Some of a text's tokens.
 * @param {Encoded} encoded
 * @param {number} begin
 * @param {number} end
 * @returns {Encoded}
 */
const cutOut = ({ ids, offsets }, begin, end) => ({
  ids: ids.slice(begin, end),
  offsets: () => offsets().slice(begin, end),
});

/** The text that is read in windows if each window answers all its pieces; otherwise null. @param {Task} task */
const sideOfAll = ({ kind: { reading } }) => (reading?.orNone ? Number(reading.second) : null);

/**
 * The tokens of the first or the second text, each with its place in that text.
 * @param {Part} part
 * @param {import("./tokenizer.js").TokenSource[]} sources
 * @param {boolean} second
 * @returns {import("./pieces.js").TokenPlace[]}
 */
function tokensOf({ sides, filled }, sources, second) {
  const slot = Number(second);
  const whole = { begin: 0, end: Number.POSITIVE_INFINITY };
  const { begin, end } = filled?.places().find((own) => own.slot === slot) ?? whole;
  const shift = filled ? filled.skipped[slot] - begin : 0;
  const side = filled ? 0 : slot;
  const offsets = sides[side].offsets();
  return sources.flatMap((source, token) => {
    if (source?.[0] !== side) return [];
    const [first, last] = offsets[source[1]];
    return Math.max(first, begin) < Math.min(last, end) ? [[token, first + shift, last + shift]] : [];
  });
}

/**
 * A text that is answered piece by piece: each window with the pieces that it answers.
 * @param {Read} read
 * @param {Part[]} parts
 * @param {import("./pieces.js").TokenPlace[][]} tokens the tokens of the text in each part
 * @param {string} text
 * @param {Task} task
 * @returns {Read}
 */
function byPiece(read, parts, tokens, text, { kind, pooling }) {
  const { pieces, orNone } = /** @type {import("./kinds/kind.js").Reading} */ (kind.reading);
  const places = pieces(text);
  const reading = reads(pooling);
  const [found, ...more] = reading.map((own) => piecesOf(tokens, places, own, orNone));
  // Words that do not fit into a window together with the template are reported as lost.
  const isShort = parts.length > 1 && found.flat().length < places.length;
  const lost = (orNone || isShort) && parts.some(({ isCut }) => isCut);
  const windows = read.windows.map((window, number) => {
    const own = found[number];
    const none = reading.map(() => spanOfNone(window.ids.length, pooling));
    const spans = own.flatMap(([, span], place) => [span, ...more.map((other) => other[number][place][1])]);
    return {
      ...window,
      spans: [...(orNone ? none : []), ...spans],
      places: [...(orNone ? [NO_PLACE] : []), ...own.map(([piece]) => places[piece])],
    };
  });
  return { windows, truncated: read.truncated || lost, text, places: windows.flatMap((window) => window.places) };
}

/** The position of a text's last character. @param {string} text */
const lastCharacter = (text) => text.length - ([...text.slice(-2)].length === 1 ? Math.min(2, text.length) : 1);

/**
 * How many tokens of each of one or two texts to keep. The longer one is cut first.
 * @param {number[]} lengths
 * @param {number} room
 */
export function longestFirst(lengths, room) {
  const sum = lengths.reduce((one, other) => one + other, 0);
  if (sum <= room) return lengths;
  if (lengths.length === 1) return [room];
  let shorter = Math.min(...lengths);
  let longer = Math.max(shorter, room - shorter);
  if (shorter + longer > room) {
    shorter = Math.floor(room / 2);
    longer = shorter + (room % 2);
  }
  return lengths[0] <= lengths[1] ? [shorter, longer] : [longer, shorter];
}

/**
 * Start and end of windows over this many tokens; the last window ends with the last token.
 * @param {number} length
 * @param {number} size
 * @param {number} stride
 * @returns {Span[]}
 */
export function windowPlaces(length, size, stride) {
  const width = Math.max(1, size);
  const step = width - Math.min(stride, width - 1);
  /** @type {Span[]} */
  const found = [];
  for (let begin = 0; begin < length; begin += step) {
    found.push([begin, Math.min(begin + width, length)]);
    if (begin + width >= length) break;
  }
  return found;
}
