/** Texts in a task's template. */

/** A template with texts in its slots. */
export class Filled {
  /**
   * @param {string[]} pieces the template's pieces; those at odd indices are slots
   * @param {string[]} texts the first text, and the second one of a pair
   * @param {number[]} skipped number of units that are skipped at the beginning of each text, for later windows
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

  /** Whether anything follows the first text; it has to be kept when texts are cut. */
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

  /** Start and end of each text, in the order of the slots. */
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
 * A template's pieces, with the slots between them. In a task for single texts, `{text_pair}` is ordinary text.
 * @param {import("./task.js").Task} task
 * @param {string} maskToken
 */
function templatePieces({ template, pairs }, maskToken) {
  const pieces = template.split(pairs ? /(\{text\}|\{text_pair\})/ : /(\{text\})/);
  return pieces.map((piece, place) => (place % 2 ? piece : piece.replaceAll("{mask}", () => maskToken)));
}
