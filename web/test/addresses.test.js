/** Bundles and tasks at an address, in Node. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { BundleError, Engine, MissingFileError, NetworkError } from "edgetune";
import { fetched } from "../src/fetching.js";
import { CONFORMANCE } from "./paths.js";

const OWN = {
  "/failing": (answer) => answer.writeHead(503).end(),
  "/endless": (answer) => answer.end(Buffer.alloc(5000)),
  "/packed.gz": (answer) => answer.end(gzipSync("plain")),
  "/plain.gz": (answer) => answer.end("plain"),
  "/broken": (answer) => {
    answer.writeHead(200, { "content-length": 1000 });
    answer.write("half", () => answer.destroy());
  },
};

let url = "";
const server = createServer(async ({ url: path }, answer) => {
  if (path in OWN) return OWN[path](answer);
  const data = await readFile(CONFORMANCE + path.slice(1)).catch(() => null);
  return data ? answer.end(data) : answer.writeHead(404).end();
});
before(async () => {
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  url = `http://127.0.0.1:${server.address().port}`;
});
after(() => server.close());

test("a bundle at an address answers like the same in a folder", async () => {
  const told = [];
  const options = { precision: "int8", threads: 1 };
  const there = await Engine.open(`${url}/bundle/encoder/`, { ...options, onProgress: (one) => told.push(one) });
  const here = await Engine.open(`${CONFORMANCE}bundle/encoder`, options);
  await there.addTask(`${url}/bundle/encoder/tasks/tags.safetensors`, { name: "added" });
  const texts = ["good", "the lamp is broken"];
  const [one, other] = await Promise.all([there, here].map((engine) => engine.classify(texts, { task: "tags" })));
  assert.deepEqual(one, other);
  assert.deepEqual((await there.classify(texts, { task: "added" }))[0].probs, one[0].probs);
  const graph = told.filter(({ file }) => file === "onnx/model_int8.onnx");
  assert.ok(graph.at(-1).done && graph.at(-1).loaded === graph.at(-1).total);
  await assert.rejects(there.classify(texts, { task: "nothing" }), /no task 'nothing' in .*: it has added, tags/);
  await there.close();
  await here.close();
});

for (const [path, kind, says] of [
  ["/nothing", MissingFileError, "does not exist"],
  ["/failing", BundleError, "the answer has status 503"],
  ["/endless", BundleError, "has more than 100 bytes"],
  ["/broken", NetworkError, "broke off"],
]) {
  test(`${path} is refused`, async () => {
    const error = await fetched(url + path, { name: path, limit: 100 }).catch((found) => found);
    assert.ok(error instanceof kind, String(error));
    assert.ok(error.message.includes(says), error.message);
  });
}

test("an address that does not answer", async () => {
  await assert.rejects(Engine.open("http://127.0.0.1:9/bundle"), NetworkError);
});

test("what is compressed is unpacked, whoever unpacks it", async () => {
  for (const path of ["/packed.gz", "/plain.gz"]) {
    assert.equal(Buffer.from(await fetched(url + path, { name: path, unpack: true })).toString(), "plain");
  }
});
