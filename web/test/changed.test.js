/** Randomly changed files are either rejected with one of edgetune's errors, or valid; nothing else happens. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { EdgetuneError } from "edgetune";
import { readManifest } from "../src/manifest.js";
import { openSession } from "../src/session.js";
import { readTask } from "../src/task.js";
import { CONFORMANCE } from "./paths.js";

const ENCODER = `${CONFORMANCE}bundle/encoder/`;
const CHANGES = 600;

const tasks = readdirSync(`${ENCODER}tasks`).filter((name) => name.endsWith(".safetensors"));
/** A fake onnxruntime that records the bytes it receives, and never runs. */
const ort = { InferenceSession: { create: async () => ({ inputNames: [], outputNames: [] }) } };

for (const [what, files, read] of [
  ["tasks", tasks.map((name) => `tasks/${name}`), (data) => readTask(data, "the task")],
  ["manifests", ["edgetune.json"], async (data) => readManifest(data, "the manifest")],
  [
    "graphs",
    ["onnx/model_light.onnx", "onnx/model.onnx"],
    (data) => openSession({ ort, device: "cpu", threads: 1, options: {} }, data, null, [], "the graph"),
  ],
]) {
  test(`changed ${what}`, async () => {
    const random = numbers(1);
    const sound = files.map((name) => readFileSync(ENCODER + name));
    let refused = 0;
    for (let k = 0; k < CHANGES; k++) {
      const data = changed(sound[random(sound.length)], random);
      const error = await read(data).then(
        () => null,
        (found) => found,
      );
      if (error === null) continue;
      assert.ok(error instanceof EdgetuneError, error.stack);
      refused++;
    }
    assert.ok(refused > CHANGES / 10, `${refused} were refused`);
  });
}

/** Reproducible random integers below a limit. */
function numbers(seed) {
  let state = seed;
  return (below) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state % below;
  };
}

/** A file with some bytes changed, its end cut off, or a part of it copied to another place. */
function changed(data, random) {
  const copy = Buffer.from(data);
  const way = random(4);
  if (way === 0) return copy.subarray(0, random(copy.length));
  if (way === 1) copy.copyWithin(random(copy.length), random(copy.length), random(copy.length));
  else for (let k = 0; k <= random(3); k++) copy[random(way === 2 ? 1200 : copy.length)] = random(256);
  return copy;
}
