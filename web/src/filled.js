/** Texts in a task's template. */

/** A template whose slots have texts in them. */
export class Filled {
  /**
   * @param {string[]} pieces of the template; those at odd places are slots
   * @param {string[]} texts the first text, and the second one of a pair
   * @param {number[]} skipped units of each with which a window does not begin
   */
  constructor(pieces, texts, skipped = [0, 0]) {
    this.pieces = pieces;
    this.texts = texts;
    this.skipped = skipped;
  }

  /**
   * @param {import("./task.js").Task} task
   * @param {string} maskToken
   * @param {string[]} texts
   */
  static of(task, maskToken, texts) {
    return new Filled(templatePieces(task, maskToken), texts);
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
   * @param {number} skipped
   */
  with(slot, text, skipped = this.skipped[slot]) {
    return new Filled(this.pieces, this.texts.with(slot, text), this.skipped.with(slot, skipped));
  }
}

/** @param {string} piece */
const slotOf = (piece) => Number(piece === "{text_pair}");

/**
 * A template's pieces, the slots of texts between them. In a task of single texts `{text_pair}` is text like any other.
 * @param {import("./task.js").Task} task
 * @param {string} maskToken
 */
function templatePieces({ template, pairs }, maskToken) {
  const pieces = template.split(pairs ? /(\{text\}|\{text_pair\})/ : /(\{text\})/);
  return pieces.map((piece, place) => (place % 2 ? piece : piece.replaceAll("{mask}", () => maskToken)));
}
