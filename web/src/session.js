/** onnxruntime sessions: a graph of a bundle, checked against the contract. */

import { BANK_INPUTS, INPUTS, isFirstGeneration } from "./contract.js";
import { BundleError } from "./errors.js";
import { externalFiles, withoutDefaults } from "./protobuf.js";

/**
 * onnxruntime, and the settings of its sessions.
 * @typedef {object} Backend
 * @property {any} ort onnxruntime-node, onnxruntime-web, or anything else with the API of onnxruntime-common
 * @property {string} device its name for people
 * @property {Record<string, any>} options the options of sessions
 * @property {number} threads the threads inside one run
 */

const EXACT_INT8 = { x64quantprecision: "1" };

/** A graph: the product of x, uint8 [1, 2], and two int8 weights of 127. */
const LARGEST_PAIR =
  "CAg6WQoYCgF4CgF3EgF5Ig1NYXRNdWxJbnRlZ2VyEgRwYWlyKg0IAggBEANCAXdKAn9/WhMKAXgSDgoMCAISCAoCCAEKAggCYhMKAXkSDgoM" +
  "CAYSCAoCCAEKAggBQgQKABAN";

/**
 * Open a graph.
 * @param {Backend} backend
 * @param {Uint8Array} graph its file
 * @param {{path: string, data: Uint8Array} | null} weights the separate file with its weights
 * @param {string[]} inputs its inputs according to the manifest
 * @param {string} origin how errors refer to it
 */
export async function openSession(backend, graph, weights, inputs, origin) {
  let stripped;
  try {
    const other = [...externalFiles(graph)].filter((name) => name !== weights?.path);
    if (other.length) throw new Error(`it takes weights from ${other.sort().join(", ")}, which it may not`);
    stripped = withoutDefaults(graph, new Set(Object.keys(BANK_INPUTS)));
  } catch (error) {
    throw new BundleError(
      `${origin} is no sound graph (${/** @type {Error} */ (error).message}): export the bundle again`,
      {
        cause: error,
      },
    );
  }
  const options = { ...backend.options, ...(weights && { externalData: [weights] }) };
  const session = await create(backend.ort, stripped, options, origin);
  checkContract(session, inputs, origin);
  return session;
}

/**
 * Options that make int8 products exact if they are not exact on this CPU: x86 without VNNI adds products of uint8 and
 * int8 in 16 bits, which overflow for large values.
 * @param {Backend} backend
 */
export async function exactInt8(backend) {
  const graph = Uint8Array.from(atob(LARGEST_PAIR), (character) => character.charCodeAt(0));
  const session = await create(backend.ort, graph, backend.options, "a graph of one product");
  const { y } = await session.run({ x: new backend.ort.Tensor("uint8", Uint8Array.of(255, 255), [1, 2]) });
  const saturates = y.data[0] !== 2 * 255 * 127;
  await session.release?.();
  const { extra = {} } = backend.options;
  return saturates
    ? { ...backend.options, extra: { ...extra, session: { ...extra.session, ...EXACT_INT8 } } }
    : backend.options;
}

/**
 * @param {any} ort
 * @param {Uint8Array} graph
 * @param {Record<string, any>} options
 * @param {string} origin
 */
async function create(ort, graph, options, origin) {
  try {
    return await ort.InferenceSession.create(graph, options);
  } catch (error) {
    throw new BundleError(
      `onnxruntime cannot load ${origin} (${/** @type {Error} */ (error).message ?? error}): export the bundle again`,
      {
        cause: error,
      },
    );
  }
}

/**
 * Throws a BundleError unless names, types and ranks are those of the contract. An input that still has a default is
 * not in `inputNames` and would not be fed, so tasks would be silently ignored.
 * @param {any} session
 * @param {string[]} inputs
 * @param {string} origin
 */
function checkContract(session, inputs, origin) {
  const rank = isFirstGeneration(inputs) ? 2 : 3;
  const told = (/** @type {string} */ name, /** @type {any} */ type, /** @type {number} */ number) =>
    `${name} ${type} ${number}`;
  const found = (/** @type {string[]} */ names, /** @type {any[]} */ metadata) =>
    names.map((name, place) => told(name, metadata?.[place]?.type, metadata?.[place]?.shape?.length)).sort();
  const expected = [
    inputs.map((name) => told(name, INPUTS[name].dtype, INPUTS[name].dims.length)).sort(),
    ["features", "logits"].map((name) => told(name, "float32", rank)),
  ];
  const own = [found(session.inputNames, session.inputMetadata), found(session.outputNames, session.outputMetadata)];
  if (JSON.stringify(own) !== JSON.stringify(expected)) {
    throw new BundleError(
      `${origin} takes and gives ${own.flat().join(", ").slice(0, 600)}: expected those of a backbone, ` +
        `${expected.flat().join(", ").slice(0, 600)}; export the bundle again`,
    );
  }
}
