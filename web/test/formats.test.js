/** Bundles and tasks that edgetune 0.1 wrote can be read, and give the same answers. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "edgetune";
import { lines, OLD } from "./paths.js";

const LEAST = { fp32: 1e-4, int8: 0.07, q4: 0.07 }; // as in tests/formats/test_old_files.py

const rows = lines(`${OLD}answers.jsonl`);
for (const key of new Set(rows.map((row) => `${row.bundle}/${row.precision}`))) {
  test(`${key} of version 1 answers as it did`, async () => {
    const [bundle, precision] = key.split("/");
    const engine = await Engine.open(OLD + bundle, { precision, threads: 1 });
    for (const row of rows.filter((one) => `${one.bundle}/${one.precision}` === key)) {
      const name = row.file.replace(/^.*\//, "").replace(".safetensors", "");
      if (row.file.startsWith("tasks/")) await engine.addTask(OLD + row.file, { name });
      const task = await engine.task(name);
      const told = `${row.file} ${JSON.stringify(row.text).slice(0, 60)}`;
      const found = engine.encoder.read(row.text, task);
      if (row.ids) assert.deepEqual([found.windows[0].ids, found.truncated], [row.ids, row.truncated], told);
      const [[logits]] = await engine.logits([{ task, read: found }], precision);
      const off = Math.max(...row.logits.map((value, place) => Math.abs(value - logits[place])));
      assert.ok(off <= LEAST[precision], `${told}: logits are off by ${off}`);
      if (precision !== "fp32") continue;
      const [answer] = await engine.classify([row.text], { task: name });
      assert.equal(answer.label, row.label, told);
      assert.ok(Math.max(...row.scores.map((value, place) => Math.abs(value - answer.probs[place]))) <= 1e-4, told);
    }
    await engine.close();
  });
}
