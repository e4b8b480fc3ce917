/**
 * Files of a bundle at an address, for browsers: fetched once and cached by SHA-256, also for use without a network.
 */

import { Kept } from "./cache.js";
import { NetworkError } from "./errors.js";
import { fetched } from "./fetching.js";

/**
 * @param {string | URL} place the address of the bundle's folder, which may be relative to the page or worker
 * @param {{onProgress?: import("./fetching.js").OnProgress, gzip?: boolean}} options `gzip`: files with a SHA-256
 *   are stored as FILE.gz, and are unpacked here
 * @returns {import("./engine.js").Source}
 */
export function browserSource(place, { onProgress, gzip = false }) {
  const origin = new URL(String(place).replace(/\/*$/, "/"), globalThis.location?.href).href;
  const kept = new Kept();

  /**
   * A file that may change at its address: the newest available version.
   * @param {string} url
   * @param {number | undefined} limit
   */
  async function newest(url, limit) {
    try {
      const data = await fetched(url, { limit, onProgress, name: url, cache: "no-cache" });
      await kept.keepByAddress(url, data);
      return data;
    } catch (error) {
      const earlier = error instanceof NetworkError ? await kept.byAddress(url) : null;
      if (!earlier) throw error;
      return earlier;
    }
  }

  return {
    origin: origin.slice(0, -1),
    async read(path, { sha256, limit }) {
      if (!sha256) return newest(origin + path, limit);
      const known = await kept.byDigest(sha256);
      if (known) {
        onProgress?.({ file: path, loaded: known.length, total: known.length, cached: true, done: true });
        return known;
      }
      const url = origin + path + (gzip ? ".gz" : "");
      const data = await fetched(url, { limit, onProgress, name: path, unpack: gzip, cache: "no-store" });
      await kept.keepByDigest(sha256, data);
      return data;
    },
    readOther: (other, limit) => newest(new URL(other, globalThis.location?.href).href, limit),
    taskNames: async () => [], // a file server does not list them
  };
}
