/** The engine: many classification tasks on one backbone. `node.js` and `browser.js` provide the files. */

import { bankOf, headLogits, int64, ofPieces } from "./bank.js";
import { fromUtf8, sha256 } from "./bytes.js";
import { isFirstGeneration, LIMITS, TASK_NAME } from "./contract.js";
import { BundleError, DataError, MissingFileError, TaskError, TextError } from "./errors.js";
import { readManifest } from "./manifest.js";
import { exactInt8, openSession } from "./session.js";
import { jsonValue, shown, wholeNumber } from "./strict.js";
import { checkFits, passKey, readTask, variantFor } from "./task.js";
import { TextEncoder } from "./text.js";

/** @typedef {import("./task.js").Task} Task */
/** @typedef {import("./text.js").Text} Text */
/** @typedef {import("./text.js").Tokens} Tokens */
/** @typedef {import("./session.js").Backend} Backend */

/**
 * The source of a bundle's files.
 * @typedef {object} Source
 * @property {string} origin how errors refer to it
 * @property {(path: string, options: {sha256?: string, limit?: number}) => Promise<Uint8Array>} read reads a file
 *   of the bundle. Throws a MissingFileError if it does not exist
 * @property {(place: any, limit: number) => Promise<Uint8Array>} readOther reads a file that the user names
 * @property {() => Promise<string[]>} taskNames the tasks in the bundle, as far as they can be listed
 */

/**
 * @typedef {object} EngineOptions
 * @property {string | null} [precision] a precision of the bundle for all texts. By default int8 if the bundle has it,
 *   with close calls in fp32 if that file exists
 * @property {number} [threads] threads inside one run
 * @property {string[]} [tasks] tasks to load now, with the graphs that they need. By default only the base graph is
 *   opened
 */

/**
 * The answer to one text. Fields that are not listed are those of the task's kind: `label`, `score`, `scores` and
 * `probs` (in the order of the task's labels); `labels`, `scores` and `probs`; `score` alone; `entities`; or `answer`,
 * `start`, `end`, `score` and `no_answer`. Places are in UTF-16 units, as `text.slice(start, end)` takes them.
 * @typedef {{task: string, kind: string, status: "ok" | "truncated" | "abstained", truncated: boolean,
 *   abstained: boolean, precision: string, [field: string]: any}} Result
 */

/**
 * The description of a task, for people and pages.
 * @typedef {object} TaskSummary
 * @property {string} task
 * @property {string} version
 * @property {string[]} labels
 * @property {string} method
 * @property {number} max_length
 * @property {string} kind
 * @property {string} kind_title
 * @property {boolean} pairs
 * @property {number[]} [thresholds]
 */

const EXACT = "fp32";
const CLOSE_CALL = 0.1;
const FEWEST_SPANS = 2; // with one span, onnxruntime sums in another order

/** Classifies texts with the tasks of a bundle. Calls may overlap: each call uses the tasks that exist at its start. */
export class Engine {
  /** @type {Map<string, Task>} */
  #tasks = new Map();
  /** @type {Map<string, Promise<any>>} */
  #sessions = new Map();
  /** @type {WeakMap<Task, Map<string, Record<string, any>>>} */
  #banks = new WeakMap();
  /** @type {Promise<unknown>} */
  #turn = Promise.resolve();
  #closed = false;

  /**
   * @param {Source} source
   * @param {Backend} backend
   * @param {(json: any) => import("./tokenizer.js").TextTokenizer} makeTokenizer
   * @param {EngineOptions} [options]
   */
  static async start(source, backend, makeTokenizer, { precision = null, tasks } = {}) {
    const manifest = readManifest(
      await source.read("edgetune.json", { limit: LIMITS["edgetune.json"] }),
      `${source.origin}/edgetune.json`,
    );
    const have = Object.keys(manifest.graphs);
    if (precision !== null && !have.includes(precision)) {
      throw new BundleError(
        `${source.origin} has no precision ${shown(precision)}: expected one of ${have.sort().join(", ")}; 'edgetune export' ` +
          "can write others",
      );
    }
    const engine = new this(source, backend, manifest, precision);
    const json = await engine.#file("tokenizer.json", LIMITS["tokenizer.json"]);
    const config = await engine.#file("config.json", LIMITS["config.json"]);
    engine.encoder = new TextEncoder(
      told(() => makeTokenizer(JSON.parse(fromUtf8(json)))),
      manifest,
      vocabularySize(config, source),
    );
    if (engine.precision !== EXACT) backend.options = await exactInt8(backend);
    const loaded = await Promise.all((tasks ?? []).map((name) => engine.task(name)));
    const variants = new Set(loaded.map((task) => variantFor(task, manifest)));
    for (const variant of tasks?.length ? variants : [""]) await engine.#session(engine.precision, variant);
    return engine;
  }

  /**
   * Use `Engine.open`.
   * @param {Source} source
   * @param {Backend} backend
   * @param {import("./manifest.js").Manifest} manifest
   * @param {string | null} precision
   */
  constructor(source, backend, manifest, precision) {
    this.source = source;
    this.backend = backend;
    this.manifest = manifest;
    const names = Object.keys(manifest.graphs);
    /** The precision that answers first. */
    this.precision = precision ?? (names.includes("int8") ? "int8" : names[0]);
    this.recheck = precision === null && this.precision !== EXACT && names.includes(EXACT) ? EXACT : null;
    /** @type {TextEncoder} */
    this.encoder = /** @type {any} */ (null);
  }

  /** The device that it runs on. */
  get device() {
    return this.backend.device;
  }

  /** Threads inside one run. */
  get threads() {
    return this.backend.threads;
  }

  /** The precisions that answer: the first one and, if close calls are answered again, the one used for them. */
  get precisions() {
    return this.recheck ? [this.precision, this.recheck] : [this.precision];
  }

  /** Sorted names of the loaded tasks, and of those in the bundle as far as they can be listed. */
  async taskNames() {
    return [...new Set([...this.#tasks.keys(), ...(await this.source.taskNames())])].sort();
  }

  /**
   * The task of that name, read from the bundle on first use.
   * @param {string} name
   * @returns {Promise<Task>}
   */
  async task(name) {
    const loaded = this.#tasks.get(name);
    if (loaded) return loaded;
    if (typeof name !== "string" || !TASK_NAME.test(name)) {
      throw new TaskError(`task name ${shown(name)} cannot be used: expected 1 to 64 letters, digits, '.', '_' or '-'`);
    }
    let data;
    try {
      data = await this.source.read(`tasks/${name}.safetensors`, { limit: LIMITS.task });
    } catch (error) {
      if (!(error instanceof MissingFileError)) throw error;
      const have = (await this.taskNames()).join(", ") || "none that can be listed";
      throw new TaskError(`no task '${name}' in ${this.source.origin}: it has ${have}; load another one with addTask`, {
        cause: error,
      });
    }
    const read = await readTask(data, `${this.source.origin}/tasks/${name}.safetensors`);
    return this.#tasks.get(name) ?? this.#keep(read, name); // it may have been added meanwhile
  }

  /**
   * Add a task, or replace the one of the same name, for calls that begin from now on.
   * @param {string | URL | Uint8Array | ArrayBuffer} place the path or address of its file, or its bytes
   * @param {{name?: string}} [options] its name; by default the task's own name
   * @returns {Promise<TaskSummary>}
   */
  async addTask(place, { name } = {}) {
    const isBytes = place instanceof ArrayBuffer || ArrayBuffer.isView(place);
    const data = isBytes ? new Uint8Array(/** @type {any} */ (place)) : await this.source.readOther(place, LIMITS.task);
    const task = await readTask(data, isBytes ? "the task" : String(place));
    if (name !== undefined && !TASK_NAME.test(name)) {
      throw new TaskError(`task name ${shown(name)} cannot be used: expected 1 to 64 letters, digits, '.', '_' or '-'`);
    }
    return summaryOf(this.#keep(task, name ?? task.name));
  }

  /** Remove a task, for calls that begin from now on. The bundle stays as it is. @param {string} name */
  removeTask(name) {
    if (!this.#tasks.delete(name)) throw new TaskError(`no task '${name}' is loaded`);
  }

  /** The description of a task, for people. @param {string} name */
  async describe(name) {
    return summaryOf(await this.task(name));
  }

  /**
   * Classify texts.
   * @param {Text[]} texts texts; for tasks that take pairs, [text, text_pair]
   * @param {{task?: string, tasks?: string[], minScore?: number}} options the task for all texts, or the task of each;
   *   and the score below which answers are withheld, 0 to 1
   * @returns {Promise<Result[]>} one for each text, in the same order
   */
  async classify(texts, { task, tasks, minScore = 0 } = {}) {
    if (!Array.isArray(texts)) throw new DataError(`${typeof texts} came instead of a list of texts: write [text]`);
    if ((task === undefined) === (tasks === undefined)) {
      throw new DataError("expected a task for the texts: pass {task: NAME}, or {tasks: [NAME, …]} with one for each");
    }
    const names = tasks ?? texts.map(() => /** @type {string} */ (task));
    if (!Array.isArray(names) || names.length !== texts.length) {
      throw new DataError(`${names.length} tasks came for ${texts.length} texts: expected one for each`);
    }
    if (!(minScore >= 0 && minScore <= 1)) {
      throw new DataError(`minScore is ${minScore}: expected a probability, from 0 to 1`);
    }
    const wanted = task === undefined ? [...new Set(names)] : [task];
    const byName = new Map(
      await Promise.all(wanted.map(async (name) => /** @type {const} */ ([name, await this.task(name)]))),
    );
    const rows = texts.map((text, place) => {
      const own = /** @type {Task} */ (byName.get(names[place]));
      checkText(place, text, own);
      if (minScore && !own.kind.minScore) {
        throw new DataError(
          `minScore is ${minScore}, and task '${own.name}' of the kind '${own.kindName}' gives no probabilities: leave it out`,
        );
      }
      return { task: own, read: told(() => this.encoder.read(text, own)) };
    });
    return this.#inTurn(() => this.#answer(rows, minScore));
  }

  /** Free the memory of the graphs. The engine cannot be used afterwards. */
  async close() {
    this.#closed = true;
    await this.#turn;
    for (const session of await Promise.allSettled(this.#sessions.values())) {
      if (session.status === "fulfilled") await session.value.release?.();
    }
    this.#sessions.clear();
  }

  /**
   * One run at a time, as onnxruntime-web requires.
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  #inTurn(work) {
    const found = this.#turn.then(work);
    this.#turn = found.catch(() => {});
    return found;
  }

  /**
   * @param {Row[]} rows
   * @param {number} minScore
   * @returns {Promise<Result[]>}
   */
  async #answer(rows, minScore) {
    if (this.#closed) throw new DataError("the engine is closed: open another one");
    const logits = await this.logits(rows, this.precision);
    const precisions = rows.map(() => this.precision);
    if (this.recheck) {
      const close = [...rows.keys()].filter(
        (place) => rows[place].task.kind.margin(logits[place], rows[place].task, rows[place].read) < CLOSE_CALL,
      );
      const again = await this.#again(close.map((place) => rows[place]));
      again?.forEach((values, k) => {
        logits[close[k]] = values;
        precisions[close[k]] = EXACT;
      });
    }
    return rows.map(({ task, read }, place) => {
      const { abstained, ...fields } = task.kind.answer(logits[place], task, minScore, read);
      const { truncated } = read;
      const status = abstained ? "abstained" : truncated ? "truncated" : "ok";
      return {
        task: task.name,
        kind: task.kindName,
        status,
        truncated,
        abstained,
        precision: precisions[place],
        ...fields,
      };
    });
  }

  /**
   * Answer close calls in fp32; null if the bundle lacks the file.
   * @param {Row[]} rows
   */
  async #again(rows) {
    try {
      return await this.logits(rows, EXACT);
    } catch (error) {
      if (!(error instanceof MissingFileError)) throw error;
      this.recheck = null; // an edge device may omit precisions that it does not run
      return null;
    }
  }

  /**
   * The logits of texts, for each span of each window. Rows with the same tokens and parts share a pass.
   * @param {Row[]} rows
   * @param {string} precision
   * @returns {Promise<Float32Array[][]>}
   */
  async logits(rows, precision) {
    /** @type {Map<string, Pass>} */
    const passes = new Map();
    const places = rows.map(({ task, read }) =>
      read.windows.map((tokens) => {
        const key = `${tokens.ids}|${tokens.typeIds}|${passKey(task, this.manifest.inputs)}`;
        const pass = passes.get(key) ?? { tokens, task, spans: new Map() };
        passes.set(key, pass);
        for (const span of tokens.spans) pass.spans.set(String(span), span);
        return { key, spans: tokens.spans.map(String) };
      }),
    );
    /** @type {Map<string, Map<string, Float32Array>>} */
    const features = new Map();
    for (const [key, pass] of passes) features.set(key, await this.#run(pass, precision));
    return rows.map(({ task }, row) =>
      ofPieces(
        places[row].flatMap(({ key, spans }) =>
          spans.map((span) => headLogits(/** @type {Float32Array} */ (features.get(key)?.get(span)), task)),
        ),
        task,
      ),
    );
  }

  /**
   * Features of a text's spans.
   * @param {Pass} pass
   * @param {string} precision
   * @returns {Promise<Map<string, Float32Array>>}
   */
  async #run({ tokens: { ids, typeIds }, task, spans }, precision) {
    const { inputs, sizes } = this.manifest;
    const variant = variantFor(task, this.manifest);
    const session = await this.#session(precision, variant);
    const { Tensor } = this.backend.ort;
    const places = [...spans.values()];
    while (places.length < FEWEST_SPANS) places.push(places[0] ?? [0, 1]);
    const shape = [1, ids.length];
    /** @type {Record<string, any>} */
    const texts = {
      input_ids: new Tensor("int64", int64(ids), shape),
      attention_mask: new Tensor("int64", int64(ids.map(() => 1)), shape),
      token_type_ids: new Tensor("int64", int64(typeIds), shape),
      spans: new Tensor("int64", int64(places.flat()), [1, places.length, 2]),
      task_index: new Tensor("int64", int64([0]), [1]),
    };
    const feed = { ...this.#bank(task, variant) };
    for (const name of inputs) if (name in texts) feed[name] = texts[name];
    let output;
    try {
      output = (await session.run(feed, ["features"])).features;
    } catch (error) {
      throw new TextError(
        `the backbone fails on a text (${/** @type {Error} */ (error).message ?? error}): export the bundle again`,
        {
          cause: error,
        },
      );
    }
    const rowOf = (/** @type {number} */ span) => (isFirstGeneration(inputs) ? 0 : span) * sizes.hidden;
    return new Map(
      [...spans.keys()].map((span, place) => [span, output.data.slice(rowOf(place), rowOf(place) + sizes.hidden)]),
    );
  }

  /**
   * @param {Task} task
   * @param {string} variant
   */
  #bank(task, variant) {
    const kept = this.#banks.get(task) ?? new Map();
    this.#banks.set(task, kept);
    if (!kept.has(variant)) {
      const { Tensor } = this.backend.ort;
      const tensors = bankOf(task, this.manifest.sizes, this.#inputs(variant));
      kept.set(
        variant,
        Object.fromEntries(tensors.map(([name, dtype, data, shape]) => [name, new Tensor(dtype, data, shape)])),
      );
    }
    return kept.get(variant);
  }

  /** @param {string} variant */
  #inputs(variant) {
    return [...this.manifest.inputs, ...(this.manifest.variants[variant] ?? [])];
  }

  /**
   * @param {string} precision
   * @param {string} variant
   * @returns {Promise<any>}
   */
  #session(precision, variant) {
    const key = `${precision}/${variant}`;
    const kept = this.#sessions.get(key) ?? this.#open(precision, variant);
    this.#sessions.set(key, kept);
    kept.catch(() => this.#sessions.delete(key)); // so that a failed download can be retried
    return kept;
  }

  /**
   * @param {string} precision
   * @param {string} variant
   */
  async #open(precision, variant) {
    const graph = this.manifest.graphs[precision];
    const file = graph.variants[variant] ?? graph.file;
    const weights = graph.data ?? graph.file;
    const bytes = await this.#file(file);
    const beside = weights === file ? null : { path: weights.replace(/^.*\//, ""), data: await this.#file(weights) };
    return openSession(this.backend, bytes, beside, this.#inputs(variant), `${this.source.origin}/${file}`);
  }

  /**
   * A file of the manifest, checked against its SHA-256.
   * @param {string} path
   * @param {number} [limit]
   */
  async #file(path, limit) {
    const expected = this.manifest.files[path];
    if (!expected)
      throw new BundleError(`the manifest of ${this.source.origin} does not list ${path}: export the bundle again`);
    const data = await this.source.read(path, { sha256: expected, limit });
    const found = await sha256(data);
    if (found !== expected) {
      throw new BundleError(
        `${this.source.origin}/${path} is damaged: its SHA-256 is ${found.slice(0, 12)}…, the manifest says ` +
          `${expected.slice(0, 12)}…; copy or export the bundle again`,
      );
    }
    return data;
  }

  /**
   * @param {Task} task
   * @param {string} name
   */
  #keep(task, name) {
    checkFits(task, this.manifest);
    const renamed = { ...task, name };
    this.#tasks.set(name, renamed);
    return renamed;
  }
}

/** @typedef {{task: Task, read: import("./text.js").Read}} Row */

/** @typedef {{tokens: Tokens, task: Task, spans: Map<string, import("./text.js").Span>}} Pass */

/**
 * @param {Task} task
 * @returns {TaskSummary}
 */
function summaryOf(task) {
  const thresholds = task.kind.thresholds(task);
  return {
    task: task.name,
    version: task.sha256,
    labels: task.labels,
    method: task.method,
    max_length: task.maxLength,
    kind: task.kindName,
    kind_title: task.kind.title,
    pairs: task.pairs,
    ...(thresholds.length && { thresholds }),
  };
}

/**
 * Throws a DataError unless a text is what a task takes.
 * @param {number} place
 * @param {any} text
 * @param {Task} task
 */
function checkText(place, text, task) {
  const wanted = task.pairs ? "a pair of strings [text, text_pair]" : "a string";
  const isPair = Array.isArray(text);
  const parts = isPair ? text : [text];
  const fits =
    isPair === task.pairs && parts.length === (task.pairs ? 2 : 1) && parts.every((one) => typeof one === "string");
  if (!fits) {
    const came = isPair ? `a list of ${parts.length}` : typeof text;
    throw new DataError(`text ${place} is ${came}: expected ${wanted} for task '${task.name}'`);
  }
  if (!parts.every((one) => one.isWellFormed())) {
    throw new DataError(`text ${place} has half of a surrogate pair: expected whole characters`);
  }
}

/**
 * @param {Uint8Array} config
 * @param {Source} source
 */
function vocabularySize(config, { origin }) {
  try {
    return wholeNumber(jsonValue(config).vocab_size, 1, 2 ** 31);
  } catch (error) {
    throw new BundleError(
      `${origin}/config.json does not say the size of the vocabulary (${/** @type {Error} */ (error).message}): export the ` +
        "bundle again",
      { cause: error },
    );
  }
}

/**
 * Wrap calls of the tokenizer: its errors are reported as a fault of its file.
 * @template T
 * @param {() => T} work
 */
function told(work) {
  try {
    return work();
  } catch (error) {
    if (error instanceof BundleError) throw error;
    throw new TextError(
      `tokenizer.json fails (${/** @type {Error} */ (error).message ?? error}): export the bundle again`,
      {
        cause: error,
      },
    );
  }
}
