/** The package stays small. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { ROOT } from "./paths.js";

const MOST_BYTES = 30_000;

test("its own code has less than 30 kB, compressed and without comments", () => {
  const folder = mkdtempSync(join(tmpdir(), "edgetune-size-"));
  try {
    const tsc = join(ROOT, "web/node_modules/typescript/bin/tsc");
    execFileSync(process.execPath, [
      tsc,
      "-p",
      join(ROOT, "web"),
      "--noEmit",
      "false",
      "--removeComments",
      "--outDir",
      folder,
    ]);
    const files = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".js"));
    assert.ok(files.length > 20);
    const all = gzipSync(Buffer.concat(files.map((name) => readFileSync(join(folder, name))))).length;
    assert.ok(all < MOST_BYTES, `${all} bytes`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
