/** What a browser keeps of bundles: files by their SHA-256, and by their address what has none. */

import { sha256 } from "./bytes.js";

const NAME = "edgetune";

/** A store in the browser's Cache API. Where there is none, or it is full, nothing is kept. */
export class Kept {
  /** @type {Promise<Cache | null>} */
  #cache;

  constructor() {
    this.#cache = globalThis.caches ? caches.open(NAME).catch(() => null) : Promise.resolve(null);
  }

  /**
   * A file by its SHA-256; one that has another by now is deleted.
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
      // A browser that has no room for it, or keeps nothing in a private window
      if (!(error instanceof DOMException)) throw error;
    }
  }
}

/** An address that nothing is fetched from. @param {string} digest */
const keyOf = (digest) => `https://edgetune.invalid/sha256/${digest}`;

/** Delete all that is kept. */
export const forget = async () => (globalThis.caches ? caches.delete(NAME) : false);
