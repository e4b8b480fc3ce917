/** The engine: valid calls, rejected calls, and that no task is ever silently ignored. */

import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Tokenizer } from "@huggingface/tokenizers";
import { BundleError, DataError, Engine, MissingFileError, TaskError, TextError } from "edgetune";
import ort from "onnxruntime-node";
import { exactInt8 } from "../src/session.js";
import { huggingFaceTokenizer } from "../src/tokenizer.js";
import { CONFORMANCE, ROOT } from "./paths.js";

const ENCODER = `${CONFORMANCE}bundle/encoder`;
const options = { precision: "fp32", threads: 1 };
let scratch = "";
let engine;
before(async () => {
  scratch = await mkdtemp(join(tmpdir(), "edgetune-"));
  engine = await Engine.open(ENCODER, options);
});
after(async () => {
  await engine.close();
  await rm(scratch, { recursive: true });
});

/** onnxruntime whose sessions are first passed to `change`. */
const changed = (change) => ({
  ...ort,
  Tensor: ort.Tensor,
  InferenceSession: { create: async (...given) => change(await ort.InferenceSession.create(...given), given) },
});

/** A copy of the bundle that a test may change. */
async function copied(name) {
  const folder = join(scratch, name);
  await cp(ENCODER, folder, { recursive: true });
  return folder;
}

test("answers of each kind", async () => {
  const [one] = await engine.classify(["good"], { task: "behind-prefix" });
  assert.equal(one.status, "ok");
  assert.equal(one.label, one.best);
  assert.equal(one.score, one.scores[one.label]);
  assert.ok(Math.abs(one.probs.reduce((sum, value) => sum + value, 0) - 1) < 1e-12);
  const [tags] = await engine.classify(["good"], { task: "tags" });
  assert.deepEqual(Object.keys(tags.scores), ["bad", "good", "neutral"]);
  assert.ok(Array.isArray(tags.labels));
  assert.deepEqual(await engine.classify([], { task: "tags" }), []);
});

test("several tasks in one call share passes and answer as alone", async () => {
  const tasks = ["behind-prefix", "both-pooler", "tags", "behind-prefix"];
  let runs = 0;
  const counting = changed((session) => {
    const run = session.run.bind(session);
    session.run = (...given) => {
      runs++;
      return run(...given);
    };
    return session;
  });
  const counted = await Engine.open(ENCODER, { ...options, ort: counting });
  const together = await counted.classify(
    tasks.map(() => "good"),
    { tasks },
  );
  assert.equal(runs, 3);
  for (const [place, task] of tasks.entries())
    assert.deepEqual([together[place]], await engine.classify(["good"], { task }));
  await counted.close();
});

test("calls may overlap, and each is answered by the tasks as it began", async () => {
  const first = await readFile(`${ENCODER}/tasks/behind-prefix.safetensors`);
  const second = await readFile(`${ENCODER}/tasks/both-pooler.safetensors`);
  await engine.addTask(first, { name: "swapped" });
  const before = engine.classify(["good"], { task: "swapped" });
  await engine.addTask(second, { name: "swapped" });
  const behind = engine.classify(["good"], { task: "swapped" });
  const [[one], [other]] = await Promise.all([before, behind]);
  assert.deepEqual(one.probs, (await engine.classify(["good"], { task: "behind-prefix" }))[0].probs);
  assert.deepEqual(other.probs, (await engine.classify(["good"], { task: "both-pooler" }))[0].probs);
  engine.removeTask("swapped");
  await assert.rejects(engine.classify(["good"], { task: "swapped" }), TaskError);
});

test("a lowest score", async () => {
  const [one] = await engine.classify(["good"], { task: "behind-prefix", minScore: 1 });
  assert.deepEqual([one.status, one.label, one.abstained], ["abstained", null, true]);
  const [tags] = await engine.classify(["good"], { task: "tags", minScore: 1 });
  assert.deepEqual(tags.labels, []);
});

test("close calls are answered again in fp32 where that file is there", async () => {
  const texts = ["good", "where is my parcel?"];
  const both = await Engine.open(ENCODER, { threads: 1 });
  assert.deepEqual(both.precisions, ["int8", "fp32"]);
  const answers = await both.classify(texts, { task: "own-classifier" });
  assert.deepEqual(
    answers.map(({ precision }) => precision),
    ["fp32", "int8"],
  );
  assert.deepEqual(answers[0].probs, (await engine.classify(["good"], { task: "own-classifier" }))[0].probs);
  await both.close();
  const folder = await copied("without-fp32");
  await unlink(`${folder}/onnx/model.onnx`);
  const alone = await Engine.open(folder, { threads: 1 });
  const left = await alone.classify(texts, { task: "own-classifier" });
  assert.deepEqual(
    left.map(({ precision }) => precision),
    ["int8", "int8"],
  );
  assert.deepEqual(alone.precisions, ["int8"]);
  await alone.close();
});

test("tasks are listed and described", async () => {
  assert.ok((await engine.taskNames()).includes("tags"));
  const { version, ...described } = await engine.describe("tags");
  assert.match(version, /^[0-9a-f]{64}$/);
  assert.deepEqual(described, {
    task: "tags",
    labels: ["bad", "good", "neutral"],
    method: "random",
    max_length: 256,
    kind: "multi-label",
    kind_title: "any number of labels",
    pairs: false,
    thresholds: [0.3, 0.5, 0.75],
  });
});

test("a tokenizer of one's own", async () => {
  const seen = [];
  const makeTokenizer = (json) => {
    const own = huggingFaceTokenizer(Tokenizer, json);
    const encode = (text) => {
      seen.push(text);
      return own.encode(text);
    };
    return { ...own, encode };
  };
  const other = await Engine.open(ENCODER, { ...options, makeTokenizer });
  await other.classify(["good"], { task: "behind-prefix" });
  assert.deepEqual(seen, ["good"]);
  await other.close();
});

test("a tokenizer that gives odd ids is refused", async () => {
  const makeTokenizer = (json) => ({
    ...huggingFaceTokenizer(Tokenizer, json),
    finish: () => ({ ids: [1e6], typeIds: [0] }),
  });
  const odd = await Engine.open(ENCODER, { ...options, makeTokenizer });
  await assert.rejects(
    odd.classify(["good"], { task: "tags" }),
    (error) => error instanceof TextError && /token id 1000000/.test(error.message),
  );
  await odd.close();
});

test("what onnxruntime-node does with a default: it drops the feed silently", async () => {
  // This is the reason for removing defaults from graphs. If this fails, onnxruntime has been fixed.
  const session = await ort.InferenceSession.create(`${ENCODER}/onnx/model.onnx`, { logSeverityLevel: 3 });
  assert.ok(!session.inputNames.includes("head_weight"));
  assert.ok(session.inputNames.includes("input_ids"));
  await session.release();
});

test("no task is dropped silently: all that is in a bank reaches the graph", async () => {
  const fed = [];
  const spying = changed((session) => {
    const run = session.run.bind(session);
    session.run = (feed, ...rest) => {
      fed.push([Object.keys(feed).sort(), [...session.inputNames].sort()]);
      return run(feed, ...rest);
    };
    return session;
  });
  const spied = await Engine.open(ENCODER, { ...options, ort: spying });
  const answers = new Set();
  for (const task of await spied.taskNames()) {
    const { pairs } = await spied.task(task);
    const [{ task: _, ...answer }] = await spied.classify([pairs ? ["good", "the lamp"] : "good"], { task });
    answers.add(JSON.stringify(answer));
  }
  assert.ok(fed.length > 20);
  for (const [given, taken] of fed) assert.deepEqual(given, taken);
  assert.ok(answers.size > 20);
  await spied.close();
});

test("a graph that still has a default is refused", async () => {
  const whole = await readFile(`${ENCODER}/onnx/model.onnx`);
  const keeping = { ...changed((session) => session) };
  keeping.InferenceSession = { create: (_, given) => ort.InferenceSession.create(whole, given) };
  const error = await Engine.open(ENCODER, { ...options, ort: keeping }).catch((found) => found);
  assert.ok(error instanceof BundleError);
  assert.match(error.message, /takes and gives .*: expected those of a backbone/);
});

test("int8 products are exact", async () => {
  const { extra } = await exactInt8({ ort, device: "cpu", threads: 1, options: { executionProviders: ["cpu"] } });
  const session = { executionProviders: ["cpu"], ...(extra && { extra }) };
  const again = await exactInt8({ ort, device: "cpu", threads: 1, options: session });
  assert.equal(again, session); // with these options, nothing saturates any more
});

for (const [name, texts, asked, kind, says] of [
  ["one string", "good", { task: "tags" }, DataError, "string came instead of a list of texts: write [text]"],
  ["no task", ["good"], {}, DataError, "expected a task for the texts"],
  ["two ways", ["good"], { task: "tags", tasks: ["tags"] }, DataError, "expected a task for the texts"],
  ["too few tasks", ["good"], { tasks: [] }, DataError, "0 tasks came for 1 texts"],
  ["a number", [1], { task: "tags" }, DataError, "text 0 is number: expected a string for task 'tags'"],
  [
    "a pair",
    [["good", "bad"]],
    { task: "tags" },
    DataError,
    "text 0 is a list of 2: expected a string for task 'tags'",
  ],
  ["half of a character", ["\ud83d"], { task: "tags" }, DataError, "half of a surrogate pair"],
  ["an odd score", ["good"], { task: "tags", minScore: 2 }, DataError, "minScore is 2: expected a probability"],
  ["an unknown task", ["good"], { task: "nothing" }, TaskError, "no task 'nothing' in"],
  ["a name that is a path", ["good"], { task: "../tags" }, TaskError, 'task name "../tags" cannot be used'],
]) {
  test(`refused: ${name}`, async () => {
    const error = await engine.classify(texts, asked).catch((found) => found);
    assert.ok(error instanceof kind, String(error));
    assert.ok(error.message.includes(says), error.message);
  });
}

test("what is not a bundle", async () => {
  await assert.rejects(Engine.open(join(scratch, "nothing")), MissingFileError);
  await assert.rejects(Engine.open(ENCODER, { precision: "q4" }), /has no precision "q4": expected one of fp32, int8/);
  await assert.rejects(Engine.open(ENCODER, { threads: 0 }), DataError);
});

for (const [file, change] of [
  ["tokenizer.json", (data) => Buffer.concat([data, Buffer.from(" ")])],
  ["config.json", (data) => data.subarray(1)],
  ["onnx/model.onnx", (data) => Buffer.from(data.map((byte, place) => (place === data.length - 1 ? byte ^ 1 : byte)))],
]) {
  test(`a damaged ${file} is refused`, async () => {
    const folder = await copied(`damaged-${file.replace("/", "-")}`);
    await writeFile(join(folder, file), change(await readFile(join(folder, file))));
    await assert.rejects(
      Engine.open(folder, options),
      (error) => error instanceof BundleError && error.message.includes("is damaged: its SHA-256 is"),
    );
  });
}

test("a link that leads out of the bundle is refused", async () => {
  const folder = await copied("linked");
  await unlink(join(folder, "tokenizer.json"));
  await symlink(`${ENCODER}/tokenizer.json`, join(folder, "tokenizer.json"));
  await assert.rejects(Engine.open(folder, options), /is a link that leads out of the bundle/);
});

test("a closed engine", async () => {
  const closed = await Engine.open(ENCODER, options);
  await closed.close();
  await assert.rejects(closed.classify(["good"], { task: "tags" }), /the engine is closed/);
});

test("weights of other files are refused", async () => {
  const { externalFiles, withoutDefaults } = await import("../src/protobuf.js");
  const light = await readFile(`${ENCODER}/onnx/model_light.onnx`);
  assert.deepEqual([...externalFiles(light)], ["model.onnx"]);
  assert.throws(() => externalFiles(light.subarray(0, 1000)), /past its message|without end/);
  const base = await readFile(`${ENCODER}/onnx/model.onnx`);
  assert.deepEqual(Buffer.from(withoutDefaults(base, new Set())), base);
  const file = "tests/formats/0.1/gpt2/onnx/model.onnx";
  assert.deepEqual([...externalFiles(await readFile(ROOT + file))], ["model.onnx.data"]);
});
