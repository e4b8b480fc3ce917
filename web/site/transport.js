// The page's transport to an engine in this browser, in a worker of its own, so that the page stays quick.

import { $, milliseconds } from "./dom.js";

// Whose time is told
export const WHERE = "this browser";

// What places in a text count: JavaScript's units
export const counted = (text) => text.split("");

const RELOADED = "edgetune-reloaded"; // in sessionStorage

let worker;
let listed; // promise of the list of tasks
let number = 0;
const waiting = new Map(); // number of a request → what to do with its answer

// Opens the engine; `list` shows its tasks.
export async function start(list) {
  $("browser").hidden = false;
  if (await reloads()) return;
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => (data.number === undefined ? showProgress(data) : answered(data));
  worker.onerror = ({ message }) => fail(message ?? "worker.js cannot be loaded: load the page again");
  listed = request({ open: true });
  try {
    const { summary } = await listed;
    $("progress").hidden = true;
    $("opened").textContent = summary;
    await list();
  } catch (error) {
    $("progress").hidden = true;
    $("problem").textContent = error.message;
  }
}

// All tasks, as JSON.
export const tasks = async () => JSON.stringify((await listed).tasks);

// What tasks answer to one input: a row for each, and how long that took.
export async function classify(asked, input, signal) {
  const text = typeof input === "string" ? input : [input.text, input.text_pair];
  const { results, spent } = await request({ text, tasks: asked.map(({ task }) => task) });
  signal.throwIfAborted();
  return { rows: results.map(rowOf), time: `run ${milliseconds(spent)}` };
}

// A result as a row of the server's answer
function rowOf({ task, status, error, kind, truncated, abstained, precision, best, probs, scores, ...own }) {
  if (error !== undefined) return { model: task, status: "error", error };
  const labels = best === undefined ? scores && { scores } : { probs, num_classes: probs.length };
  return { model: task, status, ...own, ...labels };
}

function request(message) {
  number += 1;
  worker.postMessage({ number, ...message });
  return new Promise((resolve, reject) => waiting.set(number, { resolve, reject }));
}

function answered({ number: own, error, ...answer }) {
  const { resolve, reject } = waiting.get(own);
  waiting.delete(own);
  if (error === undefined) resolve(answer);
  else reject(new Error(error));
}

function fail(message) {
  for (const { reject } of waiting.values()) reject(new Error(message));
  waiting.clear();
}

const files = new Map(); // file → [bytes that have come, bytes that will]

function showProgress({ file, loaded, total, cached }) {
  files.set(file, [loaded, Math.max(loaded, total)]);
  const sum = (place) => [...files.values()].reduce((all, sizes) => all + sizes[place], 0);
  $("progress").value = sum(0) / Math.max(1, sum(1));
  $("opened").textContent = `${cached ? "Reading" : "Loading"} ${file}: ${(sum(0) / 1e6).toFixed(1)}\u00a0MB`;
}

// offline.js keeps the page, and sends the headers without which a page has one thread. It does so from the second load
// on, so the first one ends here.
async function reloads() {
  if (!navigator.serviceWorker) return false; // not over https, nor on localhost
  try {
    await navigator.serviceWorker.register("offline.js");
  } catch (error) {
    console.warn(`edgetune: this page will not work offline (${error.message})`);
    return false;
  }
  if (navigator.serviceWorker.controller || sessionStorage.getItem(RELOADED)) return false;
  await navigator.serviceWorker.ready;
  sessionStorage.setItem(RELOADED, "1");
  location.reload();
  return true;
}
