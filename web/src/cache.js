/** A browser's cache of bundles: files by their SHA-256, or by their address if they have none. */

import { sha256 } from "./bytes.js";

const NAME = "edgetune";

/** A store in the browser's Cache API. If it is missing or full, nothing is stored. */
export class Kept {
  /** @type {Promise<Cache | null>} */
  #cache;

  constructor() {
    this.#cache = globalThis.caches ? caches.open(NAME).catch(() => null) : Promise.resolve(null);
  }

  /**
   * A file by its SHA-256. If its contents do not match, it is deleted.
   * @param {string} digest
   */
  async byDigest(digest) {
    const key = keyOf(digest);
    const found = await this.#read(key);
    if (!found || (await sha256(found)) === digest) return found;
    await (await this.#cache)?.delete(key);
    return null;
  }

  /**
   * @param {string} digest
   * @param {Uint8Array} data
   */
  async keepByDigest(digest, data) {
    if ((await sha256(data)) === digest) await this.#write(keyOf(digest), data);
  }

  /** @param {string} url */
  byAddress(url) {
    return this.#read(url);
  }

  /**
   * @param {string} url
   * @param {Uint8Array} data
   */
  keepByAddress(url, data) {
    return this.#write(url, data);
  }

  /** @param {string} key */
  async #read(key) {
    const response = await (await this.#cache)?.match(key, { ignoreVary: true });
    return response ? new Uint8Array(await response.arrayBuffer()) : null;
  }

  /**
   * @param {string} key
   * @param {Uint8Array} data
   */
  async #write(key, data) {
    const headers = { "content-length": String(data.length) };
    try {
      await (await this.#cache)?.put(key, new Response(/** @type {Uint8Array<ArrayBuffer>} */ (data), { headers }));
    } catch (error) {
      // The browser has no room for it, or stores nothing in private windows
      if (!(error instanceof DOMException)) throw error;
    }
  }
}

/** An address that is never fetched. @param {string} digest */
const keyOf = (digest) => `https://edgetune.invalid/sha256/${digest}`;

/** Delete everything that is stored. */
export const forget = async () => (globalThis.caches ? caches.delete(NAME) : false);
