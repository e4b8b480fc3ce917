/** Files of a bundle in a folder, or at an address, for Node. */

import { open, readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { TASK_NAME } from "./contract.js";
import { BundleError, MissingFileError } from "./errors.js";
import { fetched } from "./fetching.js";

const SUFFIX = ".safetensors";

/** @param {string | URL} place */
const isWeb = (place) => /^https?:/.test(String(place));

/** @param {string | URL} place */
const pathOf = (place) => (String(place).startsWith("file:") ? fileURLToPath(place) : String(place));

/**
 * @param {string | URL} place
 * @param {import("./fetching.js").OnProgress} [onProgress]
 * @returns {import("./engine.js").Source}
 */
export function nodeSource(place, onProgress) {
  const origin = String(place).replace(/\/+$/, "");
  const readOther = (/** @type {string | URL} */ other, /** @type {number} */ limit) =>
    isWeb(other) ? fetched(String(other), { limit, onProgress, name: String(other) }) : readFile(pathOf(other), limit);
  if (isWeb(place)) {
    const read = (/** @type {string} */ path, /** @type {{limit?: number}} */ { limit }) =>
      fetched(`${origin}/${path}`, { limit, onProgress, name: path });
    return { origin, read, readOther, taskNames: async () => [] };
  }
  const root = pathOf(place);
  return {
    origin,
    readOther,
    read: async (path, { limit }) => readFile(await inside(root, path), limit),
    async taskNames() {
      const names = await readdir(join(root, "tasks")).catch(() => []);
      return names
        .filter((name) => name.endsWith(SUFFIX))
        .map((name) => basename(name, SUFFIX))
        .filter((name) => TASK_NAME.test(name));
    },
  };
}

/**
 * A path below a folder. Only links that stay inside, or lead to the same repository in the hub's cache, are followed.
 * @param {string} root
 * @param {string} path
 */
async function inside(root, path) {
  const [folder, found] = await Promise.all([resolved(root), resolved(join(root, path))]);
  const snapshots = dirname(folder);
  const repository = dirname(snapshots);
  const ofHub = basename(snapshots) === "snapshots" && /^(models|datasets|spaces)--/.test(basename(repository));
  if (found.startsWith(folder + sep) || (ofHub && found.startsWith(join(repository, "blobs") + sep))) return found;
  throw new BundleError(`${join(root, path)} is a link that leads out of the bundle: copy the file itself there`);
}

/** @param {string} path */
async function resolved(path) {
  try {
    return await realpath(path);
  } catch (error) {
    throw missing(path, error);
  }
}

/**
 * @param {string} path
 * @param {any} error
 */
const missing = (path, error) =>
  ["ENOENT", "ENOTDIR"].includes(error.code)
    ? new MissingFileError(`${path} does not exist: expected a file of a bundle that 'edgetune export' wrote`, {
        cause: error,
      })
    : new BundleError(`${path} cannot be read (${error.code ?? error.message})`, { cause: error });

/**
 * @param {string} path
 * @param {number} [limit]
 */
async function readFile(path, limit = Number.POSITIVE_INFINITY) {
  try {
    const found = await stat(path);
    if (!found.isFile()) throw new BundleError(`${path} is not a regular file`); // opening a pipe would block
    const file = await open(path);
    try {
      const { size } = await file.stat();
      if (size > limit) throw new BundleError(`${path} has ${size} bytes: expected at most ${limit}`);
      const bytes = new Uint8Array(size);
      for (let at = 0; at < size; ) {
        const { bytesRead } = await file.read(bytes, at, Math.min(size - at, 1 << 30), at);
        if (!bytesRead) throw new BundleError(`${path} became shorter while it was read`);
        at += bytesRead;
      }
      return bytes;
    } finally {
      await file.close();
    }
  } catch (error) {
    throw error instanceof BundleError ? error : missing(path, error);
  }
}
