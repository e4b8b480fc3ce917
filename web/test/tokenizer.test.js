/**
 * The JavaScript tokenizer gives the same ids and offsets as the Rust library, also for odd Unicode. Exceptions are
 * listed here.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Tokenizer } from "@huggingface/tokenizers";
import { huggingFaceTokenizer } from "../src/tokenizer.js";
import { CONFORMANCE, ROOT, read } from "./paths.js";

const { texts, newer, ...bundles } = JSON.parse(read(`${ROOT}web/test/tokens.json`)); // see write_tokens.py

/** Characters that are newer than the Rust library's Unicode tables: letters in Rust, marks or punctuation here. */
const DIFFERENT = { encoder: newer };

for (const [bundle, rows] of Object.entries(bundles)) {
  const tokenizer = huggingFaceTokenizer(Tokenizer, JSON.parse(read(`${CONFORMANCE}bundle/${bundle}/tokenizer.json`)));

  test(`${bundle}: ids and offsets are those of Rust`, () => {
    for (const [place, text] of texts.entries()) {
      const { ids, offsets } = tokenizer.encode(text);
      assert.deepEqual(ids, rows[place].ids, JSON.stringify(text));
      assert.deepEqual(inCharacters(text, offsets()), rows[place].offsets, JSON.stringify(text));
    }
  });

  test(`${bundle}: newer characters`, () => {
    const odd = newer.filter(
      (text, place) => String(tokenizer.encode(text).ids) !== String(rows[texts.length + place].ids),
    );
    assert.deepEqual(odd, DIFFERENT[bundle] ?? []);
  });
}

/** Offsets in code points, as in Rust. */
function inCharacters(text, offsets) {
  const places = [...text].flatMap((character, place) =>
    Array.from(character, () => place).concat(character.length > 1 ? place : []),
  );
  places.push([...text].length);
  return offsets.map((range) => range.map((unit) => places[unit]));
}

const bert = { type: "BertProcessing", sep: ["[SEP]", 3], cls: ["[CLS]", 2] };
const roberta = {
  type: "RobertaProcessing",
  sep: ["</s>", 3],
  cls: ["<s>", 2],
  trim_offsets: true,
  add_prefix_space: false,
};
const json = JSON.parse(read(`${CONFORMANCE}bundle/decoder/tokenizer.json`));
for (const [name, processor, one, two] of [
  ["none", null, [5], [5, 6]],
  ["bytes", { type: "ByteLevel", trim_offsets: true, add_prefix_space: false }, [5], [5, 6]],
  ["bert", bert, [2, 5, 3], [2, 5, 3, 6, 3]],
  ["roberta", roberta, [2, 5, 3], [2, 5, 3, 3, 6, 3]],
  ["sequence", { type: "Sequence", processors: [{ type: "ByteLevel" }, bert] }, [2, 5, 3], [2, 5, 3, 6, 3]],
]) {
  test(`special tokens: ${name}`, () => {
    const tokenizer = huggingFaceTokenizer(Tokenizer, { ...json, post_processor: processor });
    assert.deepEqual(tokenizer.finish([5]).ids, one);
    assert.deepEqual(tokenizer.finish([5], [6]).ids, two);
    assert.deepEqual([tokenizer.special(false), tokenizer.special(true)], [one.length - 1, two.length - 2]);
  });
}

test("offsets without spaces, where the tokenizer says so", () => {
  const trims = huggingFaceTokenizer(Tokenizer, { ...json, post_processor: roberta });
  const keeps = huggingFaceTokenizer(Tokenizer, json);
  assert.deepEqual(keeps.encode("a a").offsets().at(-1), [1, 3]);
  assert.deepEqual(trims.encode("a a").offsets().at(-1), [2, 3]);
});

test("an unknown post-processor is refused", () => {
  assert.throws(() => huggingFaceTokenizer(Tokenizer, { ...json, post_processor: { type: "Other" } }), /Other/);
});
