/** Pack the package, install it in a clean folder, and use it there, in JavaScript and with its types. */

import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "./paths.js";

const WEB = join(ROOT, "web");
const TSC = join(WEB, "node_modules/typescript/bin/tsc");

const USED = `
import { Engine } from "edgetune";
const engine = await Engine.open("bundle", { precision: "fp32", threads: 1 });
const [{ label }] = await engine.classify(["good"], { task: "behind-prefix" });
console.log(label);
`;

const TYPED = `
import { Engine, KINDS, TaskError } from "edgetune";
import { Engine as InBrowser, type OpenOptions } from "edgetune/browser";
const options: OpenOptions = { device: "wasm", onProgress: ({ file, loaded, total }) => console.log(file, loaded / total) };
export const engine: Engine = await Engine.open("bundle", { precision: "int8" });
export const other: InBrowser = await InBrowser.open(new URL("https://example.org/bundle"), options);
const [answer] = await engine.classify(["a", ["b", "c"]], { task: "topic", minScore: 0.5 });
const status: "ok" | "truncated" | "abstained" = answer.status;
console.log(status, KINDS.size, new TaskError("why").message);
// @ts-expect-error: precision is a string
await Engine.open("bundle", { precision: 8 });
`;

const folder = mkdtempSync(join(tmpdir(), "edgetune-package-"));
const run = (command, ...given) =>
  execFileSync(command, given, {
    cwd: folder,
    encoding: "utf8",
    env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: "skip" },
  });
try {
  execFileSync("npm", ["pack", "--silent", "--pack-destination", folder], {
    cwd: WEB,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const [tarball] = readdirSync(folder).filter((name) => name.endsWith(".tgz"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "clean", private: true, type: "module" }));
  const { devDependencies: pinned } = JSON.parse(readFileSync(join(WEB, "package.json"), "utf8"));
  const runtime = `onnxruntime-node@${pinned["onnxruntime-node"]}`;
  run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", `./${tarball}`, runtime);
  cpSync(join(ROOT, "tests/conformance/bundle/encoder"), join(folder, "bundle"), { recursive: true });
  writeFileSync(join(folder, "used.js"), USED);
  const label = run(process.execPath, "used.js").trim();
  if (label !== "good") throw new Error(`the package answers ${label}`);
  writeFileSync(join(folder, "typed.ts"), TYPED);
  run(
    process.execPath,
    TSC,
    "--noEmit",
    "--strict",
    "--module",
    "nodenext",
    "--target",
    "esnext",
    "--types",
    "",
    "typed.ts",
  );
  const files = readdirSync(join(folder, "node_modules/edgetune"));
  console.log(`${tarball} alone classifies: ${label}; it has ${files.join(", ")}`);
} finally {
  rmSync(folder, { recursive: true });
}
