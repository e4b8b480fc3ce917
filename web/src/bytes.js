/** Bytes: text, digests, joining. */

import { DeviceError } from "./errors.js";

const encoder = new TextEncoder();

/** @param {string} text */
export const toUtf8 = (text) => encoder.encode(text);

/** Throws a TypeError if bytes are not UTF-8. A byte order mark stays. @param {Uint8Array} bytes */
export const fromUtf8 = (bytes) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);

/**
 * SHA-256 in hexadecimal.
 * @param {Uint8Array} bytes
 */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new DeviceError("this page cannot check SHA-256: browsers allow it over https and on localhost only");
  }
  const digest = await crypto.subtle.digest("SHA-256", /** @type {Uint8Array<ArrayBuffer>} */ (bytes));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {Uint8Array[]} parts */
export function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
