/** Whether an engine answers like another one: WebGPU is used only where it answers like wasm. */

import { longestFirst } from "./text.js";

/** Most that logits may differ, as in tests/conformance: by precision, else as int8's. @type {Record<string, number>} */
const TOLERANCES = { fp32: 1e-4 };
const OTHER_TOLERANCE = 0.05;
const LENGTHS = [1, 7, 40];
const LABELS = 4;
const PREFIX = 3;

/** @typedef {import("./engine.js").Engine} Engine */

/**
 * Why an engine's answers are not those of another one; "" if they are.
 * @param {Engine} engine
 * @param {Engine} reference
 */
export async function difference(engine, reference) {
  const { precision } = reference;
  const rows = probes(reference);
  const [found, expected] = [await engine.logits(rows, precision), await reference.logits(rows, precision)];
  const off = Math.max(
    ...expected.flatMap(([row], place) => Array.from(row, (value, label) => Math.abs(value - found[place][0][label]))),
  );
  const most = TOLERANCES[precision] ?? OTHER_TOLERANCE;
  return off <= most ? "" : `its logits in ${precision} are off by ${off.toPrecision(2)}, where ${most} is the most`;
}

/**
 * Rows of made-up tokens, without a prefix and behind one.
 * @param {Engine} engine
 * @returns {import("./engine.js").Row[]}
 */
function probes({ manifest, encoder }) {
  const { sizes, poolings, maxPositions, inputs } = manifest;
  const shapes = [
    ["head_weight", [LABELS, sizes.hidden]],
    ["head_bias", [LABELS]],
  ];
  const keys = inputs.includes("prefix_keys") ? [sizes.layers, sizes.kv_heads, PREFIX, sizes.head_dim] : [];
  const behind = keys.length
    ? [
        ["prefix_keys", keys],
        ["prefix_values", keys],
      ]
    : [];
  return [shapes, [...shapes, ...behind]].flatMap((own, number) => {
    const tensors = new Map(
      own.map(([name, shape]) => [name, { shape, data: waves(/** @type {number[]} */ (shape)) }]),
    );
    const task = /** @type {any} */ ({
      pooling: poolings[0],
      positionOffset: 0,
      promptLength: 0,
      tensors,
      neededInputs: [],
      parts: String(number),
    });
    return LENGTHS.map((length) => {
      const [most] = longestFirst([length], maxPositions - 1);
      const ids = Array.from({ length: most }, (_, place) => (place * 7919 + length) % encoder.vocabularySize);
      /** @type {[number, number][]} */
      const spans = [[0, most]];
      return { task, read: { truncated: false, windows: [{ ids, typeIds: ids.map(() => 0), spans }] } };
    });
  });
}

/** Numbers from -0.5 to 0.5 that are always the same. @param {number[]} shape */
function waves(shape) {
  const length = shape.reduce((one, other) => one * other, 1);
  return Float32Array.from({ length }, (_, place) => Math.sin(place * 12.9898) / 2);
}
