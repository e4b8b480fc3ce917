// The page's transport to a server: it lists tasks, answers texts, and says how the server is.

import { $, milliseconds } from "./dom.js";

const OWN_ROUTES = ["page", "metrics", "live", "ready", "health"]; // this page and probes ask for them all the time
const KEY = "edgetune-key"; // in sessionStorage: it is gone with the tab

// Whose time is told
export const WHERE = "server";

// What places in a text count: characters, of which JavaScript takes some for two units.
export const counted = (text) => Array.from(text);

let listTasks = async () => {};

// Begins to look after the server; `list` shows its tasks anew.
export function start(list) {
  listTasks = list;
  for (const part of ["server", "api"]) $(part).hidden = false;
  document.addEventListener("visibilitychange", watch);
  watch();
}

// All tasks, as JSON.
export async function tasks() {
  const response = await ask("tasks", { signal: AbortSignal.timeout(5000) });
  return JSON.stringify((await response.json()).tasks);
}

// What tasks answer to one input: a row for each, and how long the server took.
export async function classify(asked, input, signal) {
  const response = await ask("v1/classify", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: asked.map(({ task }) => task), input }),
    signal,
  });
  const timing = (response.headers.get("server-timing") ?? "").matchAll(/(\w+);dur=([\d.]+)/g);
  const time = [...timing].map(([, part, spent]) => `${part} ${milliseconds(Number(spent))}`).join(", ");
  return { rows: (await response.json()).data, time };
}

// Asking the server

async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${utf8(key)}` }) };
  const response = await fetch(path, { cache: "no-store", ...options, headers }).catch(() => {
    throw new Error("The server does not answer.");
  });
  if (response.status === 401) wantKey(key);
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({})); // something before the server may have answered
    throw Object.assign(new Error(error ?? `The answer has status ${response.status}.`), { status: response.status });
  }
  return response;
}

// fetch takes a character for a byte
const utf8 = (text) => String.fromCharCode(...new TextEncoder().encode(text));

function wantKey(refused) {
  sessionStorage.removeItem(KEY);
  $("key-why").textContent = refused ? "The server does not take this key." : "The server wants a key.";
  $("key-form").hidden = false;
  if (document.activeElement === document.body) $("key").focus(); // else somebody is writing
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value);
  $("key-form").reset();
  $("key-form").hidden = true;
  watch();
});

// Figures

let last = null; // the reading before

async function readFigures() {
  const response = await ask("metrics", { signal: AbortSignal.timeout(5000) });
  const now = { samples: readSamples(await response.text()), at: performance.now() };
  const grown = (name) => total(now, name) - total(last ?? now, name);
  showFigures(now, grown);
  const other = grown("task_changes_total") !== 0 || grown("requests_total") < 0; // tasks, or a server that began anew
  last = other ? null : now;
}

// https://prometheus.io/docs/instrumenting/exposition_formats/
function readSamples(text) {
  return [...text.matchAll(/^edgetune_(\w+)(?:\{(.*)\})? (\S+)/gm)].map(([, name, inner = "", value]) => {
    const labels = [...inner.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, of]) => [label, of]);
    return { name, labels: Object.fromEntries(labels), value: Number(value) };
  });
}

const sum = (samples) => samples.reduce((all, { value }) => all + value, 0);
const total = ({ samples }, wanted) => sum(samples.filter(({ name }) => name === wanted));

function showFigures(now, grown) {
  const counted = ({ name, labels }) => name === "requests_total" && !OWN_ROUTES.includes(labels.route);
  const requests = now.samples.filter(counted);
  const statuses = [...new Set(requests.map(({ labels }) => labels.status))].sort();
  const answered = (status) => sum(requests.filter(({ labels }) => labels.status === status));
  $("requests").textContent = sum(requests);
  $("statuses").textContent = statuses.map((status) => `${status}: ${answered(status)}`).join(", ");
  $("rate").textContent = last ? ((grown("rows_total") / (now.at - last.at)) * 1000).toFixed(1) : "–";
  $("waiting").textContent = total(now, "queue_rows");
  for (const part of ["queue", "tokenizing", "inference"]) {
    const runs = grown(`${part}_seconds_count`);
    if (runs > 0) $(part).textContent = milliseconds((grown(`${part}_seconds_sum`) / runs) * 1000);
    $(part).classList.toggle("old", runs <= 0);
  }
}

// Once a second while somebody looks, whatever goes wrong

let watching = false;

async function watch() {
  if (watching) return;
  watching = true;
  while (!document.hidden && $("key-form").hidden) {
    let problem = "";
    try {
      if (last === null) await listTasks(); // it may be another server
      await readFigures();
    } catch (error) {
      last = null;
      if (error.status !== 401) problem = error.message;
    }
    $("figures").classList.toggle("old", problem !== "");
    if ($("problem").textContent !== problem) $("problem").textContent = problem; // said once, not every second
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  watching = false;
}
