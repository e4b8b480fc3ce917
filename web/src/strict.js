/**
 * Strict parsing of values from untrusted files: JSON, integers, and text that is safe to show. Failures throw an Error
 * that says what came; the caller adds the file.
 */

import { fromUtf8 } from "./bytes.js";

// biome-ignore lint/suspicious/noControlCharactersInRegex: the pattern looks for them
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/**
 * @param {unknown} value
 * @param {number} [most]
 */
export const shown = (value, most = 60) => (JSON.stringify(value) ?? String(value)).slice(0, most);

/**
 * Parse JSON strictly: UTF-8, no lone surrogates, finite numbers, and no duplicate keys.
 * @param {Uint8Array | string} data
 * @returns {any}
 */
export function jsonValue(data) {
  const text = typeof data === "string" ? data : fromUtf8(data);
  const value = JSON.parse(text);
  /** @type {(Set<string> | null)[]} */
  const open = [];
  let last = "";
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(null);
    else if (token === "}" || token === "]") open.pop();
    else if (token === ":") {
      const keys = open[open.length - 1];
      if (keys?.has(last)) throw new Error("JSON that has a key twice in one object");
      keys?.add(last);
    } else if (token[0] === '"') {
      last = JSON.parse(token);
      if (!last.isWellFormed()) throw new Error("a string with half of a surrogate pair");
    } else if (/[0-9]/.test(token) && !Number.isFinite(Number(token))) {
      throw new Error(`the number ${token.slice(0, 40)} is too large`);
    }
  }
  return value;
}

/**
 * @param {any} value
 * @param {number} least
 * @param {number} most
 * @returns {number}
 */
export function wholeNumber(value, least, most) {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new Error(`${shown(value, 40)}: expected a whole number from ${least} to ${most}`);
  }
  return value;
}

/**
 * @param {unknown} value
 * @param {number} [mostCharacters]
 */
export function plainText(value, mostCharacters = 1000) {
  if (typeof value !== "string") throw new Error(`${shown(value, 40)}: expected a string`);
  if (value.length > mostCharacters && [...value].length > mostCharacters) {
    throw new Error(`a string of ${[...value].length} characters: expected at most ${mostCharacters}`);
  }
  if (CONTROL.test(value) || !value.isWellFormed()) {
    throw new Error(`${shown(value)}: expected text without control characters`);
  }
  return value;
}

/**
 * @param {any} value
 * @returns {Record<string, any>}
 */
export function objectOf(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new Error(`${shown(value)}: expected an object`);
  }
  return value;
}

/**
 * @param {any} value
 * @returns {string[]}
 */
export function stringsOf(value) {
  if (!Array.isArray(value) || value.some((one) => typeof one !== "string")) {
    throw new Error(`${shown(value)}: expected a list of strings`);
  }
  return value;
}
