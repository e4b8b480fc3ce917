/** The manifest of a bundle, `edgetune.json`: the backbone, its graphs, and the digests of all files. */

import { FORMAT_VERSIONS, INPUTS, INPUTS_OF_0_1, POOLINGS, REQUIRED_INPUTS, SIZES, VARIANTS } from "./contract.js";
import { BundleError } from "./errors.js";
import { jsonValue, objectOf, plainText, shown, stringsOf, wholeNumber } from "./strict.js";

/**
 * One precision of the backbone.
 * @typedef {object} Graph
 * @property {string} file path of the base graph
 * @property {string | null} data path of its weights, if they are too large for the graph's file
 * @property {Record<string, string>} variants variant → path of its graph, which uses the same weights
 */

/**
 * @typedef {object} Manifest
 * @property {number} version the version of the format
 * @property {string} name the backbone's name for people
 * @property {string} sha256 fingerprint of the weights
 * @property {string} classifierSha256 the same, including the checkpoint's own classifier; empty if there is none
 * @property {Record<string, number>} sizes
 * @property {number} maxPositions
 * @property {string[]} poolings
 * @property {string} maskToken
 * @property {string[]} inputs the inputs of the base graph
 * @property {Record<string, string[]>} variants variant → its additional inputs, cheapest first
 * @property {Record<string, Graph>} graphs the graphs, by precision
 * @property {Record<string, string>} files path → SHA-256
 */

const PLAIN_PATH = /^(?=.{1,255}$)[A-Za-z0-9][A-Za-z0-9._-]*(\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/;

/**
 * @param {Uint8Array} data
 * @param {string} origin how errors refer to it
 * @returns {Manifest}
 */
export function readManifest(data, origin) {
  try {
    return manifestOf(objectOf(jsonValue(data)), origin);
  } catch (error) {
    if (error instanceof BundleError) throw error;
    const why = /** @type {Error} */ (error).message;
    throw new BundleError(`${origin} is not a sound edgetune manifest (${why}): export the bundle again`, {
      cause: error,
    });
  }
}

/**
 * @param {Record<string, any>} record
 * @param {string} origin
 * @returns {Manifest}
 */
function manifestOf(record, origin) {
  const version = record.format_version;
  if (!FORMAT_VERSIONS.includes(version)) {
    throw new BundleError(
      `${origin} has bundle format version ${shown(version)}, expected ${FORMAT_VERSIONS.join(" or ")}: export it again, ` +
        "or install the edgetune that reads it",
    );
  }
  const requires = stringsOf(record.requires ?? []);
  if (requires.length) {
    throw new BundleError(
      `${origin} requires ${requires.join(", ")}, which this edgetune does not know: install a newer edgetune`,
    );
  }
  const sizes = Object.fromEntries(SIZES.map((name) => [name, 0]));
  for (const [name, size] of Object.entries(objectOf(record.sizes))) {
    if (!SIZES.includes(name)) throw new Error(`a size '${name}'`);
    sizes[name] = wholeNumber(size, 1, 65_536);
  }
  const lacking = SIZES.slice(0, 5).find((name) => !sizes[name]);
  if (lacking) throw new Error(`no size '${lacking}'`);
  const poolings = stringsOf(record.poolings);
  if (!poolings.length || poolings.some((one) => !POOLINGS.includes(one)))
    throw new Error(`poolings ${shown(poolings)}`);
  const maskToken = plainText(record.mask_token);
  if (poolings.includes("mask") && !maskToken) throw new Error("the pooling 'mask' without a mask token");
  plainText(record.architecture);
  plainText(record.edgetune_version);
  const given = objectOf(record.variants ?? {});
  const variants = Object.fromEntries(
    VARIANTS.filter((name) => name in given).map((name) => [name, knownInputs(objectOf(given[name]).inputs)]),
  );
  const graphs = Object.fromEntries(
    Object.entries(objectOf(record.graphs)).map(([precision, one]) => [precision, graphOf(precision, one)]),
  );
  if (!Object.keys(graphs).length) throw new Error("0 graphs");
  for (const [precision, graph] of Object.entries(graphs)) {
    if (VARIANTS.some((name) => name in graph.variants !== name in variants)) {
      throw new Error(`variants ${Object.keys(variants)}, and others of ${precision}`);
    }
  }
  return {
    version,
    name: plainText(record.base_model),
    sha256: plainText(record.backbone_sha256),
    classifierSha256: plainText(record.classifier_sha256 ?? ""),
    sizes,
    maxPositions: wholeNumber(record.max_positions, 1, 1 << 24),
    poolings,
    maskToken,
    inputs: version === 1 ? INPUTS_OF_0_1 : graphInputs(record.inputs),
    variants,
    graphs,
    files: digests(objectOf(record.files)),
  };
}

/** @param {any} record */
function graphInputs(record) {
  const found = knownInputs(record);
  const missing = REQUIRED_INPUTS.filter((name) => !found.includes(name));
  if (missing.length) throw new Error(`a graph without the inputs ${missing.join(", ")}`);
  return found;
}

/** @param {any} record */
function knownInputs(record) {
  const given = objectOf(record);
  const unknown = Object.keys(given).filter((name) => !Object.hasOwn(INPUTS, name));
  if (unknown.length)
    throw new Error(`graph inputs ${shown(unknown)}, which this edgetune does not know; a newer one may`);
  for (const [name, spec] of Object.entries(given)) {
    const { dtype, dims } = INPUTS[name];
    if (spec?.dtype !== dtype || JSON.stringify(spec.dims) !== JSON.stringify(dims)) {
      throw new Error(`a graph input '${name}' of ${shown(spec, 100)}`);
    }
  }
  return Object.keys(INPUTS).filter((name) => name in given);
}

/**
 * @param {string} precision
 * @param {any} record
 * @returns {Graph}
 */
function graphOf(precision, record) {
  const { file, data = null, batch_invariant, variants = {}, parity } = objectOf(record);
  const expected = precision === "fp32" ? "onnx/model.onnx" : `onnx/model_${precision}.onnx`;
  if (!PLAIN_PATH.test(precision) || file !== expected) throw new Error(`a graph in ${shown(file, 300)}`);
  if (data !== null && data !== `${file}.data`) throw new Error(`weights of a graph in ${shown(data, 300)}`);
  if (typeof batch_invariant !== "boolean") throw new Error(`batch_invariant ${shown(batch_invariant)}`);
  objectOf(parity);
  const known = Object.entries(objectOf(variants)).filter(([name]) => VARIANTS.includes(name));
  const odd = known.find(([name, path]) => path !== file.replace(/\.onnx$/, `_${name}.onnx`));
  if (odd) throw new Error(`a variant of a graph in ${shown(odd[1], 300)}`);
  return { file, data, variants: Object.fromEntries(known) };
}

/** @param {Record<string, any>} record */
function digests(record) {
  for (const [name, digest] of Object.entries(record)) {
    if (!PLAIN_PATH.test(name) || typeof digest !== "string" || !/^[0-9a-f]{64}$/.test(digest)) {
      throw new Error(`a file ${shown(name, 300)} with the SHA-256 ${shown(digest, 80)}`);
    }
  }
  return record;
}
