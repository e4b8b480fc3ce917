/** edgetune for Node: `import { Engine } from "edgetune"`. */

import { availableParallelism } from "node:os";
import { Engine as AnyEngine } from "./engine.js";
import { DataError } from "./errors.js";
import { nodeSource } from "./node-io.js";
import { huggingFaceTokenizer } from "./tokenizer.js";

export * from "./errors.js";
export { KINDS } from "./kinds/index.js";

/** @typedef {import("./engine.js").EngineOptions} EngineOptions */
/** @typedef {import("./engine.js").Result} Result */
/** @typedef {import("./engine.js").TaskSummary} TaskSummary */
/** @typedef {import("./tokenizer.js").TextTokenizer} TextTokenizer */

/**
 * @typedef {object} NodeOptions
 * @property {any} [ort] onnxruntime; by default the package onnxruntime-node
 * @property {(json: any) => TextTokenizer} [makeTokenizer] makes a tokenizer from the contents of tokenizer.json;
 *   by default Hugging Face's
 * @property {import("./fetching.js").OnProgress} [onProgress] receives the progress of downloads
 */

/** @typedef {EngineOptions & NodeOptions} OpenOptions */

/** Classifies texts with the tasks of a bundle. */
export class Engine extends AnyEngine {
  /**
   * Open a bundle.
   * @param {string | URL} place its folder, or the folder's address
   * @param {OpenOptions} [options]
   * @returns {Promise<Engine>}
   */
  static async open(place, options = {}) {
    const { threads = availableParallelism(), onProgress } = options;
    if (!Number.isInteger(threads) || threads < 1)
      throw new DataError(`threads is ${threads}: expected a whole number from 1 on`);
    const ort = options.ort ?? (await import("onnxruntime-node")).default;
    const makeTokenizer = options.makeTokenizer ?? (await huggingFace());
    const backend = { ort, device: "cpu", threads, options: sessionOptions(threads) };
    return /** @type {Promise<Engine>} */ (
      Engine.start(nodeSource(place, onProgress), backend, makeTokenizer, options)
    );
  }
}

async function huggingFace() {
  const { Tokenizer } = await import("@huggingface/tokenizers");
  return (/** @type {any} */ json) => huggingFaceTokenizer(Tokenizer, json);
}

/** @param {number} threads */
const sessionOptions = (threads) => ({
  executionProviders: ["cpu"],
  intraOpNumThreads: threads,
  interOpNumThreads: 1,
  logSeverityLevel: 3,
  // The same settings as in Python's engine: threads sleep between runs, and an optimizer that is slower on CPUs is
  // off.
  extra: {
    session: { force_spinning_stop: "1" },
    optimization: { disable_specified_optimizers: "SkipLayerNormFusion" },
  },
});
