/** An engine in a worker. Workers do not have import maps, so onnxruntime and the tokenizer are passed in. */

import { Tokenizer } from "/npm/@huggingface/tokenizers/dist/tokenizers.min.mjs";
import * as ort from "/npm/onnxruntime-web/dist/ort.wasm.min.mjs";
import { Engine } from "/web/src/browser.js";
import { failures } from "/web/test/cases.js";

self.onmessage = async ({ data: { place, options, cases } }) => {
  try {
    const engine = await Engine.open(place, { ort, Tokenizer, ...options });
    self.postMessage({ ...(await failures(engine, cases)), threads: engine.threads });
  } catch (error) {
    self.postMessage({ problems: [String(error.stack)] });
  }
};
