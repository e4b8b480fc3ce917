/** The engine in Node passes tests/conformance. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "edgetune";
import { byEngine, failures } from "./cases.js";
import { CONFORMANCE, read } from "./paths.js";

const KERNELS = 1e-5; // tolerance for fp32 logits: a relative change of the weights by 1e-7 changed them by 4e-6

for (const [key, cases] of byEngine(read(`${CONFORMANCE}cases.jsonl`))) {
  test(`${key} answers as it should`, async () => {
    const [bundle, precision] = key.split("/");
    const engine = await Engine.open(`${CONFORMANCE}bundle/${bundle}`, { precision, threads: 1 });
    const { problems, mostLogits, mostScores } = await failures(engine, cases);
    await engine.close();
    assert.deepEqual(problems, []);
    if (precision === "fp32") assert.ok(mostLogits <= KERNELS && mostScores <= KERNELS, `${mostLogits}, ${mostScores}`);
  });
}
