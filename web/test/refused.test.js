/** Invalid files are rejected, each for its own reason. */

import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { BundleError, Engine, TaskError } from "edgetune";
import { CONFORMANCE, lines } from "./paths.js";

const SAYS = {
  "requires-kind": "requires kind:ranking",
  "requires-part": "requires part:adapter",
  "requires-no-list": "requires is",
  "tensor-half-of-low-rank": "has the tensors ['head_bias', 'head_weight', 'query_down']",
  "manifest-variant-elsewhere": 'a variant of a graph in "onnx/model_q4_light.onnx"',
  "manifest-variant-missing": "and others of fp32",
  "manifest-variant-input-unknown": 'graph inputs ["scale"], which this edgetune does not know',
  "unknown-kind": "the kind 'ranking'",
  "version-3": "format version 3",
  "version-1-kind": "unknown fields ['kind']",
  "version-1-requires": "unknown fields ['requires']",
  "version-1-note": "unknown fields ['note']",
  "damaged-tensor": "is damaged",
  "damaged-field": "is damaged",
  "cut-short": "is not a whole task file",
  "field-twice": "a key twice",
  "another-backbone": "was trained on the backbone decoder",
  "input-missing": "needs the graph's input token_type_ids",
  "pooling-missing": "by pooling 'decoder'",
  "pooling-unknown": "has pooling 'max'",
  "template-without-text": "expected one {text}",
  "template-text-twice": "expected one {text}",
  "template-mask": "expected one {text}",
  "template-no-pair": "expected {text} and {text_pair} in it",
  "template-control": "control characters",
  "labels-too-many": "has 3 labels for a head of 2 rows",
  "labels-twice": "all different",
  "labels-one": "has 1 labels",
  "score-of-two": "has 2 labels",
  "thresholds-one": "1 thresholds for 2 labels",
  "thresholds-range": "a threshold of 1",
  "thresholds-single-label": "2 thresholds: expected none",
  "pieces-pooling": "has pooling 'pooler': expected one of cls, mean, last for the kind 'tokens'",
  "pieces-rows": "has 1 labels for a head of 5 rows",
  "questions-single": "reads single texts: expected pairs",
  "temperature-zero": "temperature 0",
  "temperature-nan": "temperature NaN",
  "length-zero": "max_length 0",
  "offset-negative": "position_offset -1",
  "offset-too-large": "begins at position 40",
  "name-path": 'task name "../head-cls"',
  "tensor-float16": "head_bias as F16",
  "tensor-nan": "not finite",
  "tensor-large": "not from -1,000,000",
  "tensor-shape": "head_weight of shape [2,15]",
  "tensor-missing": "has the tensors ['head_weight']",
  "tensor-unknown": "'lora'",
  "tensor-half": "keys and values together",
  "manifest-requires": "requires graph:blocks",
  "manifest-version-3": "format version 3",
  "manifest-version-text": 'format version "2", expected',
  "manifest-input-unknown": "row_hints",
  "manifest-input-missing": "without the inputs task_index",
  "manifest-input-dims": "a graph input 'spans'",
  "manifest-input-type": "a graph input 'input_ids'",
  "manifest-pooling-unknown": '"max"',
  "manifest-pooling-none": "poolings []",
  "manifest-mask-without-token": "without a mask token",
  "manifest-size-more": "'depth'",
  "manifest-size-zero": "0: expected a whole number",
  "manifest-graphs-none": "0 graphs",
  "manifest-graph-elsewhere": 'a graph in "onnx/model_q4.onnx"',
  "manifest-weights-elsewhere": 'in "onnx/other.data"',
  "manifest-file-above": '"../tokenizer.json"',
  "manifest-digest-short": '"tokenizer.json" with the SHA-256',
  "manifest-field-missing": "expected a whole number",
};

let scratch = "";
const engines = {};
before(async () => {
  scratch = await mkdtemp(join(tmpdir(), "edgetune-"));
  for (const bundle of ["encoder", "decoder"]) engines[bundle] = await Engine.open(`${CONFORMANCE}bundle/${bundle}`);
});
after(async () => {
  await rm(scratch, { recursive: true });
  for (const engine of Object.values(engines)) await engine.close();
});

for (const { file, bundle } of lines(`${CONFORMANCE}refused/refused.jsonl`)) {
  const [name, kind] = file.split(".");
  test(`${file} is refused`, async () => {
    const says = (error) => error.message.includes(SAYS[name]) || assert.fail(`${error.message} lacks ${SAYS[name]}`);
    if (kind === "safetensors") {
      const error = await engines[bundle].addTask(`${CONFORMANCE}refused/${file}`).catch((found) => found);
      assert.ok(error instanceof TaskError, String(error));
      says(error);
    } else {
      await cp(`${CONFORMANCE}refused/${file}`, join(scratch, "edgetune.json"));
      const error = await Engine.open(scratch).catch((found) => found);
      assert.ok(error instanceof BundleError, String(error));
      says(error);
    }
  });
}
