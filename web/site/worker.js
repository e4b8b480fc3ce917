// The engine of the page. `edgetune site` copies the files that are imported here.

import { Engine } from "./edgetune/browser.js";
import { fetched } from "./edgetune/fetching.js";
import * as ort from "./npm/onnxruntime.js";
import { Tokenizer } from "./npm/tokenizers.js";

const WASM = "npm/onnxruntime.wasm";

let opening; // promise of the engine

async function open() {
  const began = performance.now();
  const sizes = new Map(); // file → downloaded bytes
  const onProgress = (progress) => {
    if (!progress.cached) sizes.set(progress.file, progress.loaded);
    self.postMessage(progress);
  };
  const site = await (await fetch("site.json")).json();
  ort.env.wasm.wasmPaths = { mjs: new URL("npm/onnxruntime-wasm.js", self.location.href).href };
  ort.env.wasm.wasmBinary = await fetched(`${WASM}.gz`, { name: WASM, unpack: true, onProgress });
  const { precision, tasks } = site;
  const engine = await Engine.open("bundle", { ort, Tokenizer, gzip: true, precision, tasks, onProgress });
  const summaries = await Promise.all(tasks.map((name) => engine.describe(name)));
  const downloaded = [...sizes.values()].reduce((all, size) => all + size, 0) / 1e6;
  const threads = engine.threads === 1 ? "one thread" : `${engine.threads} threads`;
  const spent = ((performance.now() - began) / 1000).toFixed(1);
  const summary = `${engine.manifest.name} in ${engine.precisions.join(" and ")}, ${threads}; opened in ${spent}\u00a0s, of ${downloaded.toFixed(1)}\u00a0MB.`;
  return { engine, summary, tasks: summaries };
}

// All tasks at once, because tasks with the same parts share a pass. If that fails, each task is run separately, so
// that one failing task does not affect the others.
async function classify(text, tasks) {
  const { engine } = await opening;
  const began = performance.now();
  const alone = (task) => engine.classify([text], { task }).catch(({ message }) => [{ task, error: message }]);
  const texts = tasks.map(() => text);
  const results = await engine.classify(texts, { tasks }).catch(() => Promise.all(tasks.map(alone)));
  return { results: results.flat(), spent: performance.now() - began };
}

self.onmessage = async ({ data: { number, open: opens, text, tasks } }) => {
  try {
    if (opens) opening = open();
    if (opens) self.postMessage({ number, summary: (await opening).summary, tasks: (await opening).tasks });
    else self.postMessage({ number, ...(await classify(text, tasks)) });
  } catch (error) {
    self.postMessage({ number, error: error.message });
  }
};
