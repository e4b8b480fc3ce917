/**
 * node answers.js: {place, precision, rows} as JSON on stdin, the tokens and the answer of each row as JSON on stdout.
 */

import { readFileSync } from "node:fs";
import { Engine } from "../src/node.js";

const { place, precision, rows } = JSON.parse(readFileSync(0, "utf8"));
const engine = await Engine.open(place, { precision, threads: 1 });
const found = [];
for (const { task, text } of rows) {
  const { windows, truncated } = engine.encoder.read(text, await engine.task(task));
  const [answer] = await engine.classify([text], { task });
  found.push({ windows, truncated, answer });
}
process.stdout.write(JSON.stringify(found));
