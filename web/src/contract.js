/** The contract between graphs, task files and engines, as data. docs/format.md explains it. */

export const FORMAT_VERSIONS = [1, 2];

/** Sizes of a backbone that a manifest may name. */
export const SIZES = [
  ..."embedding hidden layers kv_heads head_dim".split(" "),
  ..."feed_forwards width query_width key_width projection_width widened_width inner_width".split(" "),
];

/** Where features are read. The graph's input `pooling` is an index into this list. */
export const POOLINGS = ["cls", "mean", "last", "mask", "decoder", "pooler", "classifier", "classifier_mean"];

/** For answers to questions: a word's first token for "it begins here", its last token for "it ends here". */
export const ENDS = "ends";

/** What a pooling reads for a piece: one of `POOLINGS`, or one per row of the head. @param {string} pooling */
export const reads = (pooling) => (pooling === ENDS ? ["cls", "last"] : [pooling]);

/** Poolings through the classifier layers of one fine-tuned checkpoint; these layers have their own fingerprint. */
export const OWN_CLASSIFIER = ["classifier", "classifier_mean"];

/** Poolings whose features pass through further layers after the backbone. */
export const TRANSFORMS = ["mask", "pooler", ...OWN_CLASSIFIER];

/** Linear layer → their number, their input and their output dimension. */
const SITES = {
  query: ["layers", "width", "query_width"],
  key: ["layers", "width", "key_width"],
  value: ["layers", "width", "key_width"],
  projection: ["layers", "width", "projection_width"],
  output: ["layers", "query_width", "width"],
  gate: ["feed_forwards", "width", "widened_width"],
  widen: ["feed_forwards", "width", "widened_width"],
  narrow: ["feed_forwards", "inner_width", "width"],
};

/**
 * Tensors of a common length that a task adds to the backbone; a task has all or none of them.
 * @typedef {object} Part
 * @property {string} length the dimension that varies from task to task
 * @property {Record<string, string[]>} tensors tensor → its dimensions in a task file
 * @property {string} [mask] the input that is 1 for real entries and 0 for padding
 * @property {string} [requires] the requirement that a task lists for it
 */

/** @type {Part[]} */
export const PARTS = [
  { length: "prompt", tensors: { prompt_embeddings: ["prompt", "embedding"] }, mask: "prompt_mask" },
  {
    length: "prefix",
    tensors: {
      prefix_keys: ["layers", "kv_heads", "prefix", "head_dim"],
      prefix_values: ["layers", "kv_heads", "prefix", "head_dim"],
    },
    mask: "prefix_mask",
  },
  ...Object.entries(SITES).map(([site, [number, read, given]]) => ({
    length: `${site}_rank`,
    tensors: { [`${site}_down`]: [number, read, `${site}_rank`], [`${site}_up`]: [number, `${site}_rank`, given] },
    requires: "part:low-rank",
  })),
  {
    length: "units",
    tensors: {
      unit_read: ["feed_forwards", "width", "units"],
      unit_bias: ["feed_forwards", "units"],
      unit_write: ["feed_forwards", "units", "width"],
    },
    requires: "part:units",
  },
];

/** @type {Part} */
export const HEAD = { length: "labels", tensors: { head_weight: ["labels", "hidden"], head_bias: ["labels"] } };

/** Tensors of a task file → their dimensions. */
export const TASK_TENSORS = {
  ...Object.assign({}, ...[...PARTS, HEAD].map((part) => part.tensors)),
  prompt_source: ["prefix", "embedding"],
};

/** @typedef {{dtype: "int64" | "float32", dims: string[]}} GraphInput */

/** @type {(dtype: "int64" | "float32", ...dims: string[]) => GraphInput} */
const input = (dtype, ...dims) => ({ dtype, dims });

/** @param {Part} part */
const bankOf = ({ tensors, mask, length }) => ({
  ...Object.fromEntries(Object.entries(tensors).map(([name, dims]) => [name, input("float32", "tasks", ...dims)])),
  ...(mask && { [mask]: input("int64", "tasks", length) }),
});

/** @type {Record<string, GraphInput>} */
export const BANK_INPUTS = {
  ...Object.assign({}, ...PARTS.map(bankOf)),
  position_offset: input("int64", "tasks"),
  pooling: input("int64", "tasks"),
  ...bankOf(HEAD),
};

/** @type {Record<string, GraphInput>} */
export const INPUTS = {
  input_ids: input("int64", "batch", "sequence"),
  attention_mask: input("int64", "batch", "sequence"),
  token_type_ids: input("int64", "batch", "sequence"),
  spans: input("int64", "batch", "spans", "ends"),
  task_index: input("int64", "batch"),
  ...BANK_INPUTS,
};

/** Inputs of every graph. */
export const REQUIRED_INPUTS = ["input_ids", "attention_mask", "task_index", "head_weight", "head_bias"];

/** Inputs of parts that only other variants than the base take. */
export const PART_INPUTS = PARTS.filter((part) => part.requires).flatMap((part) => Object.keys(part.tensors));

/** Inputs of edgetune 0.1's graphs, which do their own pooling. */
export const INPUTS_OF_0_1 = Object.keys(INPUTS).filter(
  (name) => !["token_type_ids", "spans", ...PART_INPUTS].includes(name),
);

/** Variants of a graph except the base, cheapest first. */
export const VARIANTS = ["light", "full"];

/** @param {string[]} inputs */
export const isFirstGeneration = (inputs) =>
  inputs.length === INPUTS_OF_0_1.length && inputs.every((name) => INPUTS_OF_0_1.includes(name));

/** Maximum size of a bundle's files in bytes; graphs have no limit. */
export const LIMITS = {
  "edgetune.json": 2_000_000,
  "config.json": 1_000_000,
  "tokenizer.json": 64_000_000,
  task: 64_000_000,
};

export const TASK_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
