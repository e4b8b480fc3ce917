/** Name → kind of answer. */

import { multiLabel } from "./multi-label.js";
import { score } from "./score.js";
import { singleLabel } from "./single-label.js";
import { spans } from "./spans.js";
import { tokens } from "./tokens.js";

/** @type {Map<string, import("./kind.js").Kind>} */
export const KINDS = new Map([
  ["multi-label", multiLabel],
  ["score", score],
  ["single-label", singleLabel],
  ["spans", spans],
  ["tokens", tokens],
]);
