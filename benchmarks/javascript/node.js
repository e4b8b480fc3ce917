/** node node.js BUNDLE PRECISION THREADS (both as JSON): rows as JSON on stdin, answers as JSON on stdout. */

import { readFileSync } from "node:fs";
import { Engine } from "../../web/src/node.js";
import { answersOf } from "./answers.js";

const [bundle, precision, threads] = process.argv.slice(2);
const rows = JSON.parse(readFileSync(0, "utf8"));
const began = performance.now();
const engine = await Engine.open(bundle, { precision: JSON.parse(precision), threads: Number(threads) });
const opened_ms = performance.now() - began;
process.stdout.write(JSON.stringify({ answers: await answersOf(engine, rows), opened_ms }));
