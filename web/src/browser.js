/** edgetune for browsers and their workers: `import { Engine } from "edgetune"`. */

import { browserSource } from "./browser-io.js";
import { Engine as AnyEngine } from "./engine.js";
import { DataError, DeviceError, EdgetuneError } from "./errors.js";
import { huggingFaceTokenizer } from "./tokenizer.js";
import { difference } from "./webgpu.js";

export { forget } from "./cache.js";
export * from "./errors.js";
export { KINDS } from "./kinds/index.js";

/** @typedef {import("./engine.js").EngineOptions} EngineOptions */
/** @typedef {import("./engine.js").Result} Result */
/** @typedef {import("./engine.js").TaskSummary} TaskSummary */
/** @typedef {import("./tokenizer.js").TextTokenizer} TextTokenizer */

/**
 * @typedef {object} BrowserOptions
 * @property {"wasm" | "webgpu"} [device] webgpu is used only if a check shows that it answers like wasm;
 *   otherwise wasm is used, and `engine.note` says why
 * @property {any} [ort] onnxruntime; by default "onnxruntime-web/wasm" or "onnxruntime-web/webgpu"
 * @property {any} [Tokenizer] the class of Hugging Face's package "tokenizers"; imported by default
 * @property {(json: any) => TextTokenizer} [makeTokenizer] makes another tokenizer from the contents of tokenizer.json
 * @property {import("./fetching.js").OnProgress} [onProgress] receives the progress of downloads
 * @property {boolean} [gzip] whether files are stored as FILE.gz, as `edgetune site` writes them
 */

/** @typedef {EngineOptions & BrowserOptions} OpenOptions */

const MOST_THREADS = 4; // with more cores, some are often slower and delay the others

/** Classifies texts with the tasks of a bundle. */
export class Engine extends AnyEngine {
  /** A note if it was not opened as requested; otherwise empty. */
  note = "";

  /**
   * Open a bundle.
   * @param {string | URL} place the address of its folder
   * @param {OpenOptions} [options]
   * @returns {Promise<Engine>}
   */
  static async open(place, options = {}) {
    const { device = "wasm" } = options;
    if (!["wasm", "webgpu"].includes(device)) {
      throw new DeviceError(`device ${JSON.stringify(device)} is not known: expected one of wasm, webgpu`);
    }
    const threads = threadsFor(options.threads);
    const ort =
      options.ort ?? (await (device === "wasm" ? import("onnxruntime-web/wasm") : import("onnxruntime-web/webgpu")));
    ort.env.wasm.numThreads = threads;
    const makeTokenizer = options.makeTokenizer ?? (await huggingFace(options.Tokenizer));
    const source = browserSource(place, options);
    const open = (/** @type {string} */ provider) => {
      const backend = { ort, device: provider, threads, options: sessionOptions(provider) };
      return /** @type {Promise<Engine>} */ (Engine.start(source, backend, makeTokenizer, options));
    };
    const wasm = await open("wasm");
    if (device === "wasm") return wasm;
    const gpu = await open("webgpu").catch((error) => /** @type {Error} */ (error));
    if (gpu instanceof Error && !(gpu instanceof EdgetuneError)) throw gpu;
    const why =
      gpu instanceof Error ? gpu.message : await difference(gpu, wasm).catch((error) => String(error.message));
    if (gpu instanceof Error || why) {
      wasm.note = `WebGPU is not used: ${why}`;
      if (!(gpu instanceof Error)) await gpu.close();
      return wasm;
    }
    await wasm.close();
    return gpu;
  }
}

/** @param {number} [wanted] */
function threadsFor(wanted) {
  const can = globalThis.crossOriginIsolated === true;
  if (wanted === undefined) return can ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
  if (!Number.isInteger(wanted) || wanted < 1)
    throw new DataError(`threads is ${wanted}: expected a whole number from 1 on`);
  if (wanted > 1 && !can) {
    throw new DeviceError(
      `threads is ${wanted}, and this page is not cross-origin isolated, so that it has one: let the server send ` +
        "'Cross-Origin-Opener-Policy: same-origin' and 'Cross-Origin-Embedder-Policy: require-corp', or leave threads out",
    );
  }
  return wanted;
}

/** @param {any} [Tokenizer] */
async function huggingFace(Tokenizer) {
  const found = Tokenizer ?? (await import("@huggingface/tokenizers")).Tokenizer;
  return (/** @type {any} */ json) => huggingFaceTokenizer(found, json);
}

/** @param {string} provider */
const sessionOptions = (provider) => ({
  executionProviders: [provider],
  logSeverityLevel: 3,
  extra: { optimization: { disable_specified_optimizers: "SkipLayerNormFusion" } },
});
