/** A task: its parts, labels and settings, read from its file and checked. */

import { joined, sha256, toUtf8 } from "./bytes.js";
import {
  ENDS,
  FORMAT_VERSIONS,
  HEAD,
  INPUTS,
  isFirstGeneration,
  OWN_CLASSIFIER,
  PART_INPUTS,
  PARTS,
  POOLINGS,
  reads,
  TASK_NAME,
  TASK_TENSORS,
  TRANSFORMS,
} from "./contract.js";
import { TaskError } from "./errors.js";
import { KINDS } from "./kinds/index.js";
import { OF_PIECES } from "./pieces.js";
import { readSafetensors } from "./safetensors.js";
import { jsonValue, plainText, shown, stringsOf } from "./strict.js";

/**
 * @typedef {object} TaskTensor
 * @property {number[]} shape
 * @property {Float32Array} data
 */

/**
 * A task of a backbone.
 * @typedef {object} Task
 * @property {string} name
 * @property {string} sha256 the digest of its contents, which serves as its version
 * @property {string[]} labels the labels, in the order of the head's rows
 * @property {string} kindName
 * @property {import("./kinds/kind.js").Kind} kind
 * @property {number[]} thresholds
 * @property {boolean} pairs whether a text is a pair of texts
 * @property {string} longTexts "cut" or "windows"
 * @property {number} stride
 * @property {string} pooling
 * @property {number} positionOffset
 * @property {string} template
 * @property {number} maxLength
 * @property {number} temperature
 * @property {string} method
 * @property {string} baseModel
 * @property {string} backboneSha256
 * @property {string[]} neededInputs inputs that a graph must have for this task
 * @property {number} promptLength
 * @property {number} prefixLength
 * @property {Map<string, TaskTensor>} tensors
 * @property {string} parts tasks with the same value share a pass over the same tokens
 */

const LARGEST_NUMBER = 1e6;
const MOST_TEMPLATE = 100_000;

/** Requirements that this version supports. */
const KNOWN_REQUIREMENTS = new Set([
  ...[...KINDS.values()].flatMap((kind) => kind.requires),
  ...PARTS.flatMap((part) => part.requires ?? []),
  ...Object.keys(INPUTS).map((name) => `input:${name}`),
  ...[...OWN_CLASSIFIER, ENDS].map((name) => `pooling:${name}`),
  "pairs",
  "long:windows",
]);

const REQUIRED_FIELDS = [
  ..."task labels metrics backbone_sha256 method base_model pooling".split(" "),
  ..."position_offset template max_length temperature".split(" "),
];
const DEFAULTS = { kind: "single-label", thresholds: "[]", pairs: "false", long_texts: "cut", stride: "0" };

/**
 * Read a task file and check it.
 * @param {Uint8Array} data
 * @param {string} origin how errors refer to it
 * @returns {Promise<Task>}
 */
export async function readTask(data, origin) {
  let file;
  try {
    file = readSafetensors(data);
  } catch (error) {
    throw new TaskError(
      `${origin} is not a whole task file (${/** @type {Error} */ (error).message}): expected the .safetensors file that ` +
        "'edgetune train' wrote; copy or train it again",
      { cause: error },
    );
  }
  const { sha256: written = "none", ...metadata } = file.metadata;
  const version = metadata.format_version;
  if (!FORMAT_VERSIONS.map(String).includes(version)) {
    throw new TaskError(
      `${origin} has task format version ${version}, expected ${FORMAT_VERSIONS.join(" or ")}: train it again, or ` +
        "install the edgetune that wrote it",
    );
  }
  checkTensors(file.tensors, origin);
  if (written !== (await digest(metadata, file.tensors))) {
    throw new TaskError(
      `${origin} is damaged: its contents do not have the SHA-256 written in it (${written.slice(0, 12)}…); ` +
        "copy or train it again",
    );
  }
  const requires = version === "1" ? [] : sound(origin, () => requiresOf(metadata.requires));
  const unknown = requires.filter((one) => !KNOWN_REQUIREMENTS.has(one)).sort();
  if (unknown.length) {
    throw new TaskError(
      `${origin} requires ${unknown.join(", ")}, which this edgetune does not know: install a newer edgetune`,
    );
  }
  const task = sound(origin, () => taskOf(metadata, version));
  task.sha256 = written;
  task.tensors = new Map(
    Object.entries(file.tensors).map(([name, { shape, bytes }]) => [
      name,
      { shape, data: new Float32Array(bytes.slice().buffer) },
    ]),
  );
  checkTask(task, origin);
  const has = (/** @type {string} */ name) => task.tensors.get(name)?.data.length;
  task.neededInputs = [
    ...requires.filter((one) => one.startsWith("input:")).map((one) => one.slice(6)),
    ...[...task.tensors.keys()].filter((name) => (PART_INPUTS.includes(name) ? has(name) : name !== "prompt_source")),
  ];
  task.promptLength = lengthsOf(task).prompt;
  task.prefixLength = lengthsOf(task).prefix;
  const own = PARTS.flatMap((part) => Object.keys(part.tensors)).filter(has);
  task.parts = await digest(
    { position_offset: String(task.positionOffset) },
    Object.fromEntries(own.map((name) => [name, file.tensors[name]])),
  );
  return task;
}

/**
 * A key that is the same for tasks that can share a pass through a graph with these inputs.
 * @param {Task} task
 * @param {string[]} inputs
 */
export const passKey = (task, inputs) =>
  task.parts + (isFirstGeneration(inputs) || TRANSFORMS.includes(task.pooling) ? task.pooling : "");

/**
 * The dimensions that vary from task to task, read from a task.
 * @param {Pick<Task, "tensors">} task
 * @returns {Record<string, number>}
 */
export function lengthsOf({ tensors }) {
  const lengthOf = (/** @type {import("./contract.js").Part} */ { tensors: own, length }) => {
    const [[name, dims]] = Object.entries(own);
    return tensors.get(name)?.shape[dims.indexOf(length)] ?? 0;
  };
  return Object.fromEntries([...PARTS, HEAD].map((part) => [part.length, lengthOf(part)]));
}

/**
 * Throws a TaskError unless the task was made for a backbone.
 * @param {Task} task
 * @param {import("./manifest.js").Manifest} manifest
 */
export function checkFits(task, manifest) {
  const { name, sizes, maxPositions } = manifest;
  const own = OWN_CLASSIFIER.includes(task.pooling) ? manifest.classifierSha256 : manifest.sha256;
  if (task.backboneSha256 !== own) {
    throw new TaskError(
      `task '${task.name}' was trained on the backbone ${task.baseModel} (${task.backboneSha256.slice(0, 12)}…), but this ` +
        `is ${name} (${(own || manifest.sha256).slice(0, 12)}…): use the bundle of its own backbone, or train it again`,
    );
  }
  if (!reads(task.pooling).every((own) => manifest.poolings.includes(own))) {
    throw new TaskError(
      `task '${task.name}' reads its features by pooling '${task.pooling}', which ${name} does not have: expected one of ` +
        `${manifest.poolings.join(", ")}; train it again`,
    );
  }
  variantFor(task, manifest);
  if (Math.max(task.promptLength, task.positionOffset) >= maxPositions) {
    throw new TaskError(
      `task '${task.name}' has a prompt of ${task.promptLength} tokens and its text begins at position ` +
        `${task.positionOffset}: ${name} has ${maxPositions} positions, which leaves no room for text`,
    );
  }
  /** @type {Record<string, number>} */
  const all = { ...sizes, ...lengthsOf(task) };
  for (const [tensor, { shape }] of task.tensors) {
    const expected = TASK_TENSORS[tensor].map((/** @type {string} */ dim) => all[dim]);
    if (String(shape) !== String(expected)) {
      throw new TaskError(`task '${task.name}' has ${tensor} of shape [${shape}]: expected [${expected}] on ${name}`);
    }
  }
}

/**
 * The cheapest graph variant that takes all parts of a task; "" is the base.
 * @param {Task} task
 * @param {import("./manifest.js").Manifest} manifest
 */
export function variantFor(task, { inputs, variants, name }) {
  const needed = task.neededInputs.filter((one) => !inputs.includes(one));
  /** @type {Record<string, string[]>} */
  const choices = { "": [], ...variants };
  for (const [variant, more] of Object.entries(choices)) {
    if (needed.every((one) => more.includes(one))) return variant;
  }
  const all = Object.values(variants).flat();
  const missing = needed.filter((one) => !all.includes(one));
  throw new TaskError(
    `task '${task.name}' needs the graph's input ${(missing.length ? missing : needed).join(", ")}, which this bundle of ` +
      `${name} does not have: export ${name} again`,
  );
}

/**
 * @template T
 * @param {string} origin
 * @param {() => T} read
 */
function sound(origin, read) {
  try {
    return read();
  } catch (error) {
    const why = /** @type {Error} */ (error).message;
    throw new TaskError(
      `${origin} is not a sound edgetune task: its metadata cannot be read (${why}); train it again`,
      {
        cause: error,
      },
    );
  }
}

/** @param {string | undefined} text */
function requiresOf(text) {
  if (text === undefined) return [];
  const value = jsonValue(text);
  if (!Array.isArray(value) || value.some((one) => typeof one !== "string")) {
    throw new Error(`requires is ${shown(value)}: expected a list of strings`);
  }
  return value;
}

/**
 * @param {Record<string, string>} metadata
 * @param {string} version
 * @returns {Task}
 */
function taskOf(metadata, version) {
  const missing = REQUIRED_FIELDS.filter((name) => !Object.hasOwn(metadata, name));
  if (missing.length) throw new Error(`no field '${missing[0]}'`);
  if (version === "1") {
    const unknown = Object.keys(metadata).filter((name) => ![...REQUIRED_FIELDS, "format_version"].includes(name));
    if (unknown.length) throw new Error(`unknown fields ['${unknown.sort().join("', '")}']`);
  }
  const fields = /** @type {Record<string, string>} */ ({ ...DEFAULTS, ...metadata });
  if (!TASK_NAME.test(fields.task)) {
    throw new Error(
      `task name ${shown(fields.task)} cannot be used: expected 1 to 64 letters, digits, '.', '_' or '-', the first a ` +
        "letter or digit",
    );
  }
  const kind = KINDS.get(fields.kind);
  if (!kind) throw new Error(`the kind '${fields.kind}': expected one of ${[...KINDS.keys()].join(", ")}`);
  const thresholds = jsonValue(fields.thresholds);
  if (!Array.isArray(thresholds) || thresholds.some((one) => typeof one !== "number")) {
    throw new Error(`${shown(thresholds)}: expected a list of numbers`);
  }
  const metrics = jsonValue(fields.metrics);
  if (Object.values(metrics).some((one) => typeof one !== "number")) throw new Error(`metrics ${shown(metrics)}`);
  if (!["true", "false"].includes(fields.pairs)) throw new Error(`${shown(fields.pairs)}: expected true or false`);
  return {
    ...UNFILLED,
    name: fields.task,
    labels: stringsOf(jsonValue(fields.labels)).map((label) => plainText(label)),
    kindName: fields.kind,
    kind,
    thresholds,
    pairs: fields.pairs === "true",
    longTexts: fields.long_texts,
    stride: whole(fields.stride),
    pooling: plainText(fields.pooling),
    positionOffset: whole(fields.position_offset),
    template: fields.template,
    maxLength: whole(fields.max_length),
    temperature: number(fields.temperature),
    method: plainText(fields.method),
    baseModel: plainText(fields.base_model),
    backboneSha256: plainText(fields.backbone_sha256),
  };
}

const UNFILLED = {
  sha256: "",
  neededInputs: /** @type {string[]} */ ([]),
  promptLength: 0,
  prefixLength: 0,
  tensors: /** @type {Map<string, TaskTensor>} */ (new Map()),
  parts: "",
};

/** @param {string} value */
function whole(value) {
  if (!/^-?[0-9]{1,9}$/.test(value)) throw new Error(`${shown(value, 40)}: expected a whole number`);
  return Number(value);
}

/** @param {string} value */
function number(value) {
  if (!/^[-+.0-9a-zE]{1,40}$/.test(value)) throw new Error(`${shown(value, 40)}: expected a number`);
  return Number(value);
}

/**
 * @param {Record<string, import("./safetensors.js").Stored>} tensors
 * @param {string} origin
 */
function checkTensors(tensors, origin) {
  const names = Object.keys(tensors);
  const halves = [...PARTS, HEAD].some((part) => {
    const own = Object.keys(part.tensors).filter((name) => names.includes(name));
    return own.length > 0 && own.length < Object.keys(part.tensors).length;
  });
  const known = names.every((name) => Object.hasOwn(TASK_TENSORS, name));
  if (!known || halves || !names.includes("head_weight")) {
    throw new TaskError(
      `${origin} has the tensors ['${names.sort().join("', '")}']: expected ['head_weight', 'head_bias'] and any of ` +
        "those of docs/format.md (keys and values together)",
    );
  }
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    const dims = TASK_TENSORS[name];
    if (dtype !== "F32" || shape.length !== dims.length) {
      throw new TaskError(`${origin} has ${name} as ${dtype} [${shape}]: expected F32 [${dims}]`);
    }
    const values = new Float32Array(bytes.slice().buffer);
    if (!values.every((value) => Math.abs(value) <= LARGEST_NUMBER)) {
      throw new TaskError(
        `${origin} has numbers in ${name} that are not finite or not from -1,000,000 to 1,000,000: train it again`,
      );
    }
  }
}

/**
 * @param {Task} task
 * @param {string} origin
 */
function checkTask(task, origin) {
  const { labels, kind, kindName, pooling, pairs, positionOffset, maxLength, temperature, longTexts, stride } = task;
  const [fewest, most] = kind.labels;
  const rows = task.tensors.get("head_weight")?.shape[0];
  const biases = task.tensors.get("head_bias")?.shape[0];
  const expected = kind.headRows(labels.length);
  const all = rows === expected && biases === expected && new Set(labels).size === labels.length;
  if (!all || labels.length < fewest || labels.length > most) {
    throw new TaskError(
      `${origin} has ${labels.length} labels for a head of ${rows} rows and ${biases} biases: expected at least ${fewest} ` +
        `and at most ${most} labels for the kind '${kindName}', all different, and ${expected} rows`,
    );
  }
  const poolings = kind.reading ? [...OF_PIECES, ...(kind.reading.orNone ? [ENDS] : [])] : POOLINGS;
  if (!poolings.includes(pooling)) {
    throw new TaskError(
      `${origin} has pooling '${pooling}': expected one of ${poolings.join(", ")} for the kind '${kindName}'`,
    );
  }
  if (kind.reading?.second && !pairs) {
    throw new TaskError(
      `${origin} reads single texts: expected pairs for the kind '${kindName}', which reads the second`,
    );
  }
  checkTemplate(task, origin);
  if (positionOffset < 0 || maxLength < 1 || !Number.isFinite(temperature) || temperature <= 0) {
    throw new TaskError(
      `${origin} has position_offset ${positionOffset}, max_length ${maxLength}, temperature ${temperature}: expected an ` +
        "offset of at least 0, a length of at least 1 and a temperature above 0",
    );
  }
  if (!["cut", "windows"].includes(longTexts) || stride < 0 || stride >= maxLength) {
    throw new TaskError(
      `${origin} has long_texts '${longTexts}' and stride ${stride}: expected one of cut, windows, and a stride of at ` +
        `least 0 and below the max_length ${maxLength}`,
    );
  }
  try {
    kind.check(task);
  } catch (error) {
    throw new TaskError(`${origin} has ${/** @type {Error} */ (error).message}; train it again`, { cause: error });
  }
}

/**
 * @param {Task} task
 * @param {string} origin
 */
function checkTemplate({ template, pooling, pairs }, origin) {
  try {
    plainText(template, MOST_TEMPLATE);
  } catch (error) {
    throw new TaskError(
      `${origin} has the template ${shown(template, 300)}: ${/** @type {Error} */ (error).message}; write another`,
      { cause: error },
    );
  }
  const count = (/** @type {string} */ slot) => template.split(slot).length - 1;
  const has = `${origin} has the template ${shown(template, 300)}`;
  if (count("{text}") !== 1 || count("{mask}") !== Number(pooling === "mask")) {
    throw new TaskError(
      `${has} for pooling '${pooling}': expected one {text}, and one {mask} if the pooling is 'mask', else none`,
    );
  }
  if (!pairs) return; // in which {text_pair} is ordinary text
  const second = count("{text_pair}");
  if (second > 1) throw new TaskError(`${has} with ${second} {text_pair}: expected at most one`);
  if (!second && template !== "{text}") {
    throw new TaskError(`${has} for pairs of texts: expected {text} and {text_pair} in it, or no template`);
  }
}

/**
 * SHA-256 over metadata and tensors, as specified in docs/format.md.
 * @param {Record<string, string>} metadata
 * @param {Record<string, import("./safetensors.js").Stored>} tensors
 */
function digest(metadata, tensors) {
  const pairs = Object.keys(metadata)
    .sort(byCodePoint)
    .map((key) => `${ascii(key)}: ${ascii(metadata[key])}`);
  /** @type {Uint8Array[]} */
  const parts = [toUtf8(`{${pairs.join(", ")}}`)];
  for (const name of Object.keys(tensors).sort(byCodePoint)) {
    const { shape, bytes } = tensors[name];
    parts.push(toUtf8(`${name} <f4 (${shape.join(", ")}${shape.length === 1 ? "," : ""})\n`), bytes);
  }
  return sha256(joined(parts));
}

/** JSON in ASCII. @param {string} text */
const ascii = (text) =>
  JSON.stringify(text).replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);

/**
 * @param {string} one
 * @param {string} other
 */
function byCodePoint(one, other) {
  const points = [...other].map((character) => character.codePointAt(0) ?? 0);
  for (const [place, character] of [...one].entries()) {
    const difference = (character.codePointAt(0) ?? 0) - (points[place] ?? -1);
    if (difference) return difference;
  }
  return [...one].length - points.length;
}
