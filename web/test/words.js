/** node words.js: {texts} as JSON on stdin, the places of each text's words as JSON on stdout. */

import { readFileSync } from "node:fs";
import { words } from "../src/words.js";

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).texts.map(words)));
