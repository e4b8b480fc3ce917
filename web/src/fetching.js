/** Files over HTTP, with progress. */

import { joined } from "./bytes.js";
import { BundleError, MissingFileError, NetworkError } from "./errors.js";

/**
 * @typedef {object} Progress
 * @property {string} file
 * @property {number} loaded bytes received
 * @property {number} total total bytes; 0 if the server does not send the number
 * @property {boolean} cached whether it came from the browser's cache
 * @property {boolean} done
 *
 * @typedef {(progress: Progress) => void} OnProgress
 */

/**
 * @param {string} url
 * @param {{limit?: number, onProgress?: OnProgress, name: string, unpack?: boolean,
 *   cache?: RequestCache}} options `unpack`: data that begins like a
 *   gzip file is unpacked
 */
export async function fetched(
  url,
  { limit = Number.POSITIVE_INFINITY, onProgress, name, unpack = false, cache = "default" },
) {
  let response;
  try {
    response = await fetch(url, { cache });
  } catch (error) {
    const why = /** @type {Error} */ (error).message;
    throw new NetworkError(`${url} cannot be fetched (${why}): check the address and the network`, { cause: error });
  }
  if (response.status === 404) throw new MissingFileError(`${url} does not exist: expected a file of a bundle`);
  if (!response.ok) throw new BundleError(`${url} cannot be fetched: the answer has status ${response.status}`);
  const total = Number(response.headers.get("content-length") ?? 0);
  let loaded = 0;
  const counted = new TransformStream({
    transform(chunk, controller) {
      loaded += chunk.length;
      onProgress?.({ file: name, loaded, total, cached: false, done: false });
      controller.enqueue(chunk);
    },
  });
  const body = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body).pipeThrough(counted);
  const parts = [];
  let length = 0;
  try {
    for await (const chunk of chunksOf(unpack ? await unpacked(body) : body)) {
      length += chunk.length;
      if (length > limit)
        throw new BundleError(`${url} has more than ${limit} bytes, which are the most that are expected`);
      parts.push(chunk);
    }
  } catch (error) {
    if (error instanceof BundleError) throw error;
    throw new NetworkError(`${url} broke off (${/** @type {Error} */ (error).message ?? error}): try again`, {
      cause: error,
    });
  }
  onProgress?.({ file: name, loaded, total: loaded, cached: false, done: true });
  return joined(parts);
}

/**
 * The chunks of a stream; not every browser can iterate over one.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream
 */
async function* chunksOf(stream) {
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

/**
 * Unpack a stream if it begins like a gzip file, because servers may already have unpacked it.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream
 */
async function unpacked(stream) {
  const [first, whole] = stream.tee();
  const reader = first.getReader();
  const { value } = await reader.read();
  reader.cancel().catch(() => {}); // otherwise everything that is read would be buffered for it
  return value?.[0] === 0x1f && value[1] === 0x8b ? whole.pipeThrough(new DecompressionStream("gzip")) : whole;
}
