/** Check whether an engine answers like another one: WebGPU is used only if it answers like wasm. */

import { HEAD, PARTS } from "./contract.js";
import { MissingFileError } from "./errors.js";

/**
 * Maximum difference of logits by precision, as in tests/conformance.
 * @type {Record<string, number>}
 */
const TOLERANCES = { fp32: 1e-4 };
const OTHER_TOLERANCE = 0.05;
const TOKENS = [1, 7, 40];
const LABELS = 4;
const LENGTH = 3; // length of parts

/** @typedef {import("./engine.js").Engine} Engine */
/** @typedef {import("./manifest.js").Manifest} Manifest */

/**
 * Why an engine's answers differ from those of another one; "" if they are the same. Each graph variant is checked.
 * @param {Engine} engine
 * @param {Engine} reference
 */
export async function difference(engine, reference) {
  const { precision, manifest, encoder } = reference;
  const most = TOLERANCES[precision] ?? OTHER_TOLERANCE;
  for (const variant of ["", ...Object.keys(manifest.variants)]) {
    const rows = [...rowsOf(madeUpTask(manifest, variant), manifest, encoder.vocabularySize)];
    let expected;
    try {
      expected = await reference.logits(rows, precision);
    } catch (error) {
      if (error instanceof MissingFileError) continue; // a missing variant cannot be used anyway
      throw error;
    }
    const found = await engine.logits(rows, precision);
    const off = Math.max(...expected.flatMap(([row], place) => apart(row, found[place][0])));
    if (!(off <= most)) return `its logits in ${precision} are off by ${off.toPrecision(2)}, where ${most} is the most`;
  }
  return "";
}

/**
 * @param {Float32Array} one
 * @param {Float32Array} other
 */
const apart = (one, other) => Array.from(one, (value, label) => Math.abs(value - other[label]));

/**
 * A task with all parts that a graph variant takes; for the base, a prompt and a prefix.
 * @param {Manifest} manifest
 * @param {string} variant
 * @returns {import("./task.js").Task}
 */
function madeUpTask({ sizes, poolings, inputs, variants }, variant) {
  const taken = variants[variant] ?? inputs;
  const parts = PARTS.filter(({ tensors }) => Object.keys(tensors).every((name) => taken.includes(name)));
  const lengths = Object.fromEntries(parts.map(({ length }) => [length, LENGTH]));
  /** @type {Record<string, number>} */
  const all = { ...sizes, ...lengths, labels: LABELS };
  const tensors = [...parts, HEAD].flatMap((part) => Object.entries(part.tensors));
  const made = tensors.map(([name, dims]) => /** @type {const} */ ([name, waves(dims.map((dim) => all[dim]))]));
  const promptLength = lengths.prompt ?? 0;
  return /** @type {any} */ ({
    pooling: poolings[0],
    positionOffset: promptLength,
    promptLength,
    tensors: new Map(made),
    neededInputs: tensors.map(([name]) => name),
    parts: variant,
  });
}

/**
 * Texts of artificial tokens.
 * @param {import("./task.js").Task} task
 * @param {Manifest} manifest
 * @param {number} vocabularySize
 * @returns {Generator<import("./engine.js").Row>}
 */
function* rowsOf(task, { maxPositions }, vocabularySize) {
  for (const tokens of TOKENS) {
    const length = Math.max(1, Math.min(tokens, maxPositions - task.promptLength));
    const ids = Array.from({ length }, (_, place) => (place * 7919 + tokens) % vocabularySize);
    const window = {
      ids,
      typeIds: ids.map(() => 0),
      spans: /** @type {[number, number][]} */ ([[0, length]]),
      places: [],
    };
    yield { task, read: { windows: [window], truncated: false, text: "", places: [] } };
  }
}

/**
 * A tensor of reproducible numbers from -0.5 to 0.5.
 * @param {number[]} shape
 */
function waves(shape) {
  const length = shape.reduce((one, other) => one * other, 1);
  return { shape, data: Float32Array.from({ length }, (_, place) => Math.sin(place * 12.9898) / 2) };
}
