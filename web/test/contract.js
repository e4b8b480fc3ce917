/** node contract.js: the package's knowledge of the format, as JSON. */

import * as contract from "../src/contract.js";
import { KINDS } from "../src/kinds/index.js";

const kinds = Object.fromEntries(KINDS);
const parts = [...contract.PARTS, contract.HEAD].map(({ length, tensors, mask = null, requires = null }) => ({
  length,
  tensors: Object.keys(tensors),
  mask,
  requires,
}));
process.stdout.write(JSON.stringify({ ...contract, kinds, parts }));
