// The page's transport to an engine in this browser. The engine runs in a worker, so that the page stays responsive.

import { $, milliseconds } from "./dom.js";

// Where the displayed time was measured
export const WHERE = "this browser";

// The unit of places in a text: JavaScript's UTF-16 units
export const counted = (text) => text.split("");

const RELOADED = "edgetune-reloaded"; // in sessionStorage

let worker;
let listed; // promise of the list of tasks
let number = 0;
const waiting = new Map(); // number of a request → callbacks for its answer

// Open the engine; `list` shows its tasks.
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

// The answers of tasks to one input: one row per task, and the duration.
export async function classify(asked, input, signal) {
  const text = typeof input === "string" ? input : [input.text, input.text_pair];
  const { results, spent } = await request({ text, tasks: asked.map(({ task }) => task) });
  signal.throwIfAborted();
  return { rows: results.map(rowOf), time: `run ${milliseconds(spent)}` };
}

// A result in the format of the server's rows
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

const files = new Map(); // file → [bytes received, total bytes]

function showProgress({ file, loaded, total, cached }) {
  files.set(file, [loaded, Math.max(loaded, total)]);
  const sum = (place) => [...files.values()].reduce((all, sizes) => all + sizes[place], 0);
  $("progress").value = sum(0) / Math.max(1, sum(1));
  $("opened").textContent = `${cached ? "Reading" : "Loading"} ${file}: ${(sum(0) / 1e6).toFixed(1)}\u00a0MB`;
}

// offline.js stores the page, and adds the headers that a page needs for threads. It works from the second load on, so
// the first load is repeated here.
async function reloads() {
  if (!navigator.serviceWorker) return false; // neither https nor localhost
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
