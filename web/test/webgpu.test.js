/** The check whether a device answers like another one tries each graph variant of a bundle. */

import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Engine } from "edgetune";
import ort from "onnxruntime-node";
import { difference } from "../src/webgpu.js";
import { CONFORMANCE } from "./paths.js";

/** onnxruntime that returns wrong features from graphs with a given input. */
const off = (input, by) => ({
  Tensor: ort.Tensor,
  InferenceSession: {
    async create(...given) {
      const session = await ort.InferenceSession.create(...given);
      const run = session.run.bind(session);
      session.run = async (...asked) => {
        const { features } = await run(...asked);
        return {
          features: {
            data: session.inputNames.includes(input) ? features.data.map((value) => value + by) : features.data,
          },
        };
      };
      return session;
    },
  },
});

const options = { precision: "fp32", threads: 1 };
const SAME = "";

for (const [bundle, input, by, says] of [
  ["encoder", "input_ids", 0, SAME],
  ["encoder", "input_ids", 1e-7, SAME],
  ["encoder", "input_ids", 0.01, /its logits in fp32 are off by 0\.\d+, where 0\.0001 is the most/],
  ["encoder", "query_down", 0.01, /off by/],
  ["encoder", "gate_down", 0.01, SAME], // no variant of this bundle takes it
  ["encoder", "narrow_down", 0.01, /off by/],
  ["encoder", "input_ids", Number.NaN, /off by NaN/],
  ["encoder-decoder", "input_ids", 0, SAME],
  ["decoder", "input_ids", 0, SAME],
]) {
  test(`${bundle}, ${input} off by ${by}`, async () => {
    const place = `${CONFORMANCE}bundle/${bundle}`;
    const [engine, reference] = await Promise.all([
      Engine.open(place, { ...options, ort: off(input, by) }),
      Engine.open(place, options),
    ]);
    const found = await difference(engine, reference);
    if (says === SAME) assert.equal(found, SAME);
    else assert.match(found, says);
    await engine.close();
    await reference.close();
  });
}

test("variants whose files are left out are not tried", async () => {
  const folder = await mkdtemp(join(tmpdir(), "edgetune-"));
  try {
    await cp(`${CONFORMANCE}bundle/encoder`, folder, { recursive: true });
    for (const variant of ["light", "full"]) await rm(`${folder}/onnx/model_${variant}.onnx`);
    const reference = await Engine.open(folder, options);
    const engine = await Engine.open(folder, { ...options, ort: off("input_ids", 0) });
    assert.equal(await difference(engine, reference), SAME);
    await engine.close();
    await reference.close();
  } finally {
    await rm(folder, { recursive: true });
  }
});
