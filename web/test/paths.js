import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const CONFORMANCE = `${ROOT}tests/conformance/`;
export const OLD = `${ROOT}tests/formats/0.1/`;
export const read = (path) => readFileSync(path, "utf8");
export const lines = (path) =>
  read(path)
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
