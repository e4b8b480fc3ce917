/**
 * Many tasks in a page, by edgetune and by transformers.js, with the same methods; see `transformers_js.py`.
 *
 * add(name): the task is ready. answer(text, name): its label. all(text, names): the labels of several tasks.
 */

/**
 * One backbone, and a file for each task.
 * @param {number} threads
 */
export async function edgetune(threads) {
  const { Engine } = await import("/web/src/browser.js");
  const engine = await Engine.open("/bundle", { precision: "int8", threads });
  const all = async (/** @type {string} */ text, /** @type {string[]} */ tasks) =>
    (await engine.classify(Array(tasks.length).fill(text), { tasks })).map(({ label }) => label);
  return {
    add: (/** @type {string} */ name) => engine.addTask(`/tasks/${name}.safetensors`, { name }),
    answer: async (/** @type {string} */ text, /** @type {string} */ name) => (await all(text, [name]))[0],
    all,
  };
}

/**
 * A fine-tuned model for each task.
 * @param {number} threads
 * @param {string} wasm the build of onnxruntime, "" or what its name ends with
 */
export async function transformers(threads, wasm) {
  const { env, pipeline } = await import("/npm2/@huggingface/transformers/dist/transformers.min.js");
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/models/" });
  const place = `${location.origin}/npm2/onnxruntime-web/dist/ort-wasm-simd-threaded${wasm}`;
  env.backends.onnx.wasm.wasmPaths = { mjs: `${place}.mjs`, wasm: `${place}.wasm` };
  env.backends.onnx.wasm.numThreads = threads;
  const loaded = new Map();
  const answer = async (/** @type {string} */ text, /** @type {string} */ name) =>
    (await loaded.get(name)(text))[0].label;
  return {
    add: async (/** @type {string} */ name) =>
      loaded.set(name, await pipeline("text-classification", name, { device: "wasm", dtype: "q8" })),
    answer,
    all: async (/** @type {string} */ text, /** @type {string[]} */ names) => {
      const labels = [];
      for (const name of names) labels.push(await answer(text, name)); // it has one queue for all sessions
      return labels;
    },
  };
}
