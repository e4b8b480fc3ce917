/** Text to what a backbone reads: token ids, segments, and the spans that features are read from. */

import { BundleError, TextError } from "./errors.js";

/** @typedef {string | [string, string]} Text a text or, for tasks that take pairs, two */
/** @typedef {import("./task.js").Task} Task */
/** @typedef {import("./tokenizer.js").Encoded} Encoded */
/** @typedef {[number, number]} Span begin and end in tokens of the text; a soft prompt stands before 0 */

/**
 * A text, or a window of it, as a backbone reads it.
 * @typedef {object} Tokens
 * @property {number[]} ids special tokens included
 * @property {number[]} typeIds 1 for tokens of the second text of a pair, else 0
 * @property {Span[]} spans
 */

/**
 * @typedef {object} Read
 * @property {Tokens[]} windows one, or several of a long text
 * @property {boolean} truncated whether the end of the text was cut off
 */

/** Fills texts into their tasks' templates, cuts them to the tasks' lengths, and never pads. */
export class TextEncoder {
  /**
   * @param {import("./tokenizer.js").TextTokenizer} tokenizer
   * @param {import("./manifest.js").Manifest} manifest
   * @param {number} vocabularySize token ids that the backbone knows
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
    const { long, windows, truncated } = joins ? this.#joined(texts, task, room) : this.#filled(texts, task, room);
    const read = windows.map((parts) => this.#finished(parts, task));
    for (const { ids } of read) this.#check(ids, task);
    return { windows: read, truncated: truncated && !long };
  }

  /**
   * Two texts that the tokenizer joins.
   * @param {string[]} texts
   * @param {Task} task
   * @param {number} room
   */
  #joined(texts, task, room) {
    const own = texts.map((one) => this.tokenizer.encode(one).ids);
    const truncated = own[0].length + own[1].length > room;
    if (!truncated || task.longTexts !== "windows") {
      const kept = longestFirst(
        own.map((ids) => ids.length),
        room,
      );
      return { long: false, truncated, windows: [own.map((ids, place) => ids.slice(0, kept[place]))] };
    }
    // The shorter side is in every window, by half at most.
    const longer = Number(own[1].length >= own[0].length);
    const other = own[1 - longer].slice(0, Math.floor(room / 2));
    const windows = windowPlaces(own[longer].length, room - other.length, task.stride).map(([begin, end]) => {
      const part = own[longer].slice(begin, end);
      return longer ? [other, part] : [part, other];
    });
    return { long: true, truncated, windows };
  }

  /**
   * Texts in a template.
   * @param {string[]} texts
   * @param {Task} task
   * @param {number} room
   */
  #filled(texts, task, room) {
    const filled = new Filled(piecesOf(task, this.maskToken), texts);
    const encoded = this.tokenizer.encode(filled.text());
    const truncated = encoded.ids.length > room;
    const windows = truncated && task.longTexts === "windows" ? this.#windows(filled, encoded, task, room) : [];
    if (windows.length) return { long: true, truncated, windows: windows.map((ids) => [ids]) };
    return { long: false, truncated, windows: [[this.#cut(filled, encoded, room)]] };
  }

  /**
   * A long text in windows, each with the template.
   * @param {Filled} filled
   * @param {Encoded} encoded
   * @param {Task} task
   * @param {number} room
   */
  #windows(filled, encoded, { stride }, room) {
    const { ids } = encoded;
    if (!filled.goesOn && !filled.pieces[0]) {
      return windowPlaces(ids.length, room, stride).map(([begin, end]) => ids.slice(begin, end));
    }
    const slots = filled.places();
    const lengths = slots.map(({ slot }) => [...filled.texts[slot]].length);
    const { slot, begin, end } = slots[lengths.indexOf(Math.max(...lengths))];
    const inside = encoded.offsets().filter(([first, last]) => first >= begin && last <= end);
    return windowPlaces(inside.length, room - (ids.length - inside.length), stride).map(([first, last]) => {
      // A token at an end may have a character of the template, such as the space before the text.
      const start = first ? inside[first][0] - begin : 0;
      const part = filled.texts[slot].slice(start, last < inside.length ? inside[last - 1][1] - begin : undefined);
      const window = filled.with(slot, part);
      return this.#cut(window, this.tokenizer.encode(window.text()), room);
    });
  }

  /**
   * Cut the ends of the texts, not what the template puts around them.
   * @param {Filled} filled
   * @param {Encoded} encoded
   * @param {number} room
   */
  #cut(filled, encoded, room) {
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
      // A text is cut in each turn, or all of them are dropped.
      const same = next.texts.every((text, place) => text === filled.texts[place]);
      filled = same
        ? new Filled(
            filled.pieces,
            filled.texts.map(() => ""),
          )
        : next;
      encoded = this.tokenizer.encode(filled.text());
    }
    return encoded.ids.slice(0, room);
  }

  /**
   * @param {number[][]} parts
   * @param {Task} task
   * @returns {Tokens}
   */
  #finished(parts, task) {
    const { ids, typeIds } = this.tokenizer.finish(...parts);
    if (!ids.length) return { ids: [0], typeIds: [0], spans: [this.#span([0], task)] }; // a run needs a token
    return { ids, typeIds: task.pairs ? typeIds : ids.map(() => 0), spans: [this.#span(ids, task)] };
  }

  /**
   * What a task's pooling reads.
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
      pooler: [-promptLength, 1 - promptLength], // the first token of all, a soft prompt's if there is one
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

  /** Positions that a task leaves for the text. @param {Task} task */
  #positions({ positionOffset, promptLength }) {
    return this.maxPositions - Math.max(positionOffset, promptLength);
  }
}

/** Texts in a template. */
class Filled {
  /**
   * @param {string[]} pieces the template's; those at odd places are slots
   * @param {string[]} texts the first text, and the second one of a pair
   */
  constructor(pieces, texts) {
    this.pieces = pieces;
    this.texts = texts;
  }

  /** Whether anything stands behind the first text, which has to be kept when texts are cut. */
  get goesOn() {
    return this.texts.length > 1 || this.pieces[this.pieces.length - 1] !== "";
  }

  /** @param {number} place */
  #value(place) {
    return place % 2 ? this.texts[slotOf(this.pieces[place])] : this.pieces[place];
  }

  text() {
    return this.pieces.map((_, place) => this.#value(place)).join("");
  }

  /** Begin and end of each text, in the order of the slots. */
  places() {
    let at = 0;
    return this.pieces.flatMap((piece, place) => {
      const begin = at;
      at += this.#value(place).length;
      return place % 2 ? [{ slot: slotOf(piece), begin, end: at }] : [];
    });
  }

  /**
   * The same with another text.
   * @param {number} slot
   * @param {string} text
   */
  with(slot, text) {
    return new Filled(this.pieces, this.texts.with(slot, text));
  }
}

/** @param {string} piece */
const slotOf = (piece) => Number(piece === "{text_pair}");

/**
 * A template's pieces, the slots of texts between them. In a task of single texts `{text_pair}` is text like any other.
 * @param {Task} task
 * @param {string} maskToken
 */
function piecesOf({ template, pairs }, maskToken) {
  const pieces = template.split(pairs ? /(\{text\}|\{text_pair\})/ : /(\{text\})/);
  return pieces.map((piece, place) => (place % 2 ? piece : piece.replaceAll("{mask}", () => maskToken)));
}

/** Where the last character of a text begins. @param {string} text */
const lastCharacter = (text) => text.length - ([...text.slice(-2)].length === 1 ? Math.min(2, text.length) : 1);

/**
 * How many tokens of each of one or two texts are kept: the longer one is cut first.
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
 * Begin and end of windows over that many tokens; the last one ends with the last token.
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
