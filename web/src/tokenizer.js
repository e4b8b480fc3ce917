/**
 * The tokenizer of a bundle: token ids, the place of each token in the text, and special tokens. It wraps
 * @huggingface/tokenizers, and can be replaced by anything with these four methods.
 */

import { BundleError } from "./errors.js";
import { offsetsOf } from "./offsets.js";

/**
 * @typedef {object} Encoded
 * @property {number[]} ids the token ids of a text, without special tokens
 * @property {() => [number, number][]} offsets start and end of each token in the text, in UTF-16 units. They are
 *   needed only if a text is cut inside a template, or answered word by word
 *
 * @typedef {[sequence: number, place: number] | null} TokenSource the text of a token, and its index there; null for
 *   special tokens
 *
 * @typedef {object} TextTokenizer
 * @property {(text: string) => Encoded} encode
 * @property {(...texts: number[][]) => {ids: number[], typeIds: number[], sources: TokenSource[]}} finish adds special
 *   tokens to the ids of one or two texts
 * @property {(pair: boolean) => number} special the number of tokens that `finish` adds
 * @property {(token: string) => number | undefined} idOf
 */

/** @typedef {{sequence: 0 | 1, typeId: number | null} | {ids: number[], typeId: number}} Piece */

/**
 * @param {any} Tokenizer the class of @huggingface/tokenizers
 * @param {any} json the contents of tokenizer.json
 * @returns {TextTokenizer}
 */
export function huggingFaceTokenizer(Tokenizer, json) {
  const tokenizer = new Tokenizer({ added_tokens: [], ...json, truncation: null, padding: null }, {});
  tokenizer.normalizer = asInRust(tokenizer.normalizer, json.normalizer);
  const trims = trimsOffsets(json.post_processor);
  const templates = [false, true].map((pair) => templateOf(json.post_processor, pair));
  return {
    encode(text) {
      const { ids, tokens } = tokenizer.encode(text, { add_special_tokens: false });
      return { ids, offsets: () => offsetsOf(tokenizer, json, text, tokens, trims) };
    },
    finish(...texts) {
      const made = templates[texts.length - 1].flatMap((piece) => {
        const own = "ids" in piece ? piece.ids : (texts[piece.sequence] ?? []);
        const source = (/** @type {number} */ place) => ("ids" in piece ? null : [piece.sequence, place]);
        return own.map((id, place) => ({ id, typeId: piece.typeId ?? 0, source: source(place) }));
      });
      return {
        ids: made.map(({ id }) => id),
        typeIds: made.map(({ typeId }) => typeId),
        sources: made.map(({ source }) => /** @type {TokenSource} */ (source)),
      };
    },
    special: (pair) => templates[Number(pair)].reduce((sum, piece) => sum + ("ids" in piece ? piece.ids.length : 0), 0),
    idOf: (token) => tokenizer.token_to_id(token),
  };
}

/**
 * A normalizer that corrects two differences from the Rust library. Rust converts each character to lower case
 * separately, so a sigma at the end of a word is not special. It also knows the Chinese characters above U+FFFF.
 * @param {((text: string) => string) | null} normalizer
 * @param {any} json its entry in tokenizer.json
 * @returns {((text: string) => string) | null}
 */
function asInRust(normalizer, json) {
  /** @type {any[]} */
  const all = json?.type === "Sequence" ? json.normalizers : [json];
  const lowers = all.some((one) => one?.type === "Lowercase" || (one?.type === "BertNormalizer" && one.lowercase));
  const chinese = all.some((one) => one?.type === "BertNormalizer" && one.handle_chinese_chars);
  if (!normalizer || !(lowers || chinese)) return normalizer;
  return (text) => {
    const lowered = lowers ? text.replaceAll("\u03a3", "\u03c3") : text;
    return normalizer(chinese ? lowered.replace(CHINESE_PAST_FFFF, " $& ") : lowered);
  };
}

const CHINESE_PAST_FFFF =
  /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

/**
 * The pieces that a post-processor makes from one or two texts.
 * @param {any} processor its entry in tokenizer.json
 * @param {boolean} pair
 * @returns {Piece[]}
 */
function templateOf(processor, pair) {
  /** @type {Piece[]} */
  const plain = pair
    ? [
        { sequence: 0, typeId: 0 },
        { sequence: 1, typeId: 0 },
      ]
    : [{ sequence: 0, typeId: 0 }];
  const [first, second] = plain;
  const token = (/** @type {[string, number]} */ [, id], typeId = 0) => ({ ids: [id], typeId });
  switch (processor?.type) {
    case undefined:
    case "ByteLevel":
      return plain;
    case "TemplateProcessing":
      return processor[pair ? "pair" : "single"].map((/** @type {any} */ piece) =>
        piece.Sequence
          ? { sequence: piece.Sequence.id === "B" ? 1 : 0, typeId: piece.Sequence.type_id }
          : { ids: processor.special_tokens[piece.SpecialToken.id].ids, typeId: piece.SpecialToken.type_id },
      );
    case "BertProcessing": {
      const { cls, sep } = processor;
      return [token(cls), first, token(sep), ...(pair ? [second, token(sep, 1)] : [])];
    }
    case "RobertaProcessing": {
      const { cls, sep } = processor;
      return [token(cls), first, token(sep), ...(pair ? [token(sep), second, token(sep)] : [])];
    }
    case "Sequence": {
      const own = processor.processors.filter((/** @type {any} */ one) => one.type !== "ByteLevel");
      if (own.length < 2) return templateOf(own[0], pair);
    }
  }
  throw new BundleError(
    `tokenizer.json has the post-processor ${JSON.stringify(processor).slice(0, 200)}, which this edgetune does not know`,
  );
}

/**
 * Whether a post-processor strips spaces from the ends of tokens, and whether it keeps the one that the tokenizer
 * inserted before the text.
 * @param {any} processor
 * @returns {{prefixSpace: boolean} | null}
 */
function trimsOffsets(processor) {
  if (processor?.type === "Sequence") {
    return processor.processors.map(trimsOffsets).find((/** @type {any} */ one) => one) ?? null;
  }
  const trims = ["ByteLevel", "RobertaProcessing"].includes(processor?.type) && (processor.trim_offsets ?? true);
  return trims ? { prefixSpace: processor.add_prefix_space ?? true } : null;
}
