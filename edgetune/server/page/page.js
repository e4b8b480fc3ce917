// Task names, labels and errors come from elsewhere: they are put in as text, never as HTML.
// What answers is in transport.js: a server, or an engine in this browser.

import { $, make, milliseconds } from "./dom.js";
import * as transport from "./transport.js";

const SCORES_SHOWN = 8;
const TASKS_WITHOUT_FILTER = 12;
const TASKS_PICKED_AT_FIRST = 4;
// In a row of an answer, what is not of its kind
const AROUND = ["index", "model", "status", "error", "probs", "num_classes"];
// A question and the text that answers it, and a text by itself. Both have names, places, and a complaint.
const EXAMPLE_PAIR = ["Where is the parcel of Ann Lee?", "The parcel of Ann Lee is still in Rome. It is a week late."];
const EXAMPLE = "My parcel from Rome is a week late, and nobody answers my mails. Ann Lee";
const REPLACED = "The task was replaced just now: classify again.";

// Tasks

const NO_TASKS = "There are none yet: make one with 'edgetune fit', and start the server again.";
const tasks = new Map();
let listed = "";

const picked = () => [...$("tasks").querySelectorAll(":checked")].map((box) => box.value);

async function listTasks() {
  const body = await transport.tasks();
  if (body === listed) return; // what is shown keeps its place and the focus
  const found = JSON.parse(body);
  const names = listed || found.length > TASKS_PICKED_AT_FIRST ? picked() : found.map(({ task }) => task);
  listed = body;
  tasks.clear();
  for (const task of found) tasks.set(task.task, task);
  $("tasks").replaceChildren(...found.map((task) => choice(task, names.includes(task.task))));
  $("filter").hidden = found.length <= TASKS_WITHOUT_FILTER;
  filterTasks();
  countPicked();
}

function choice({ task, labels, kind_title, pairs }, checked) {
  const box = make("input", { type: "checkbox", value: task, checked });
  const number = labels.length > 1 ? ` (of ${labels.length})` : "";
  return make(
    "label",
    {},
    box,
    make("span", {}, task),
    make("small", {}, kind_title + number, pairs ? ", for pairs" : ""),
  );
}

function filterTasks() {
  const wanted = $("filter").hidden ? "" : $("filter").value.trim().toLowerCase();
  for (const label of $("tasks").children) {
    label.hidden = !label.firstChild.value.toLowerCase().includes(wanted);
  }
}

function countPicked() {
  $("picked").textContent = tasks.size ? `${picked().length} of ${tasks.size} picked` : NO_TASKS;
  const pairs = picked().some((name) => tasks.get(name).pairs);
  $("text-pair").required = pairs;
  for (const element of [$("text-pair"), ...$("text-pair").labels]) element.hidden = !pairs;
}

$("filter").addEventListener("input", filterTasks);
$("tasks").addEventListener("change", countPicked);

// Answers

const cards = new Map(); // by task; an answer stays until the next one is there
let asking = new AbortController();

async function classifyAll() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const names = picked();
  for (const name of names) {
    if (!cards.has(name)) cards.set(name, make("article", {}, make("h2", {}, name)));
    setWaiting(cards.get(name), true);
  }
  $("answers").replaceChildren(...names.map((name) => cards.get(name)));
  $("said").textContent = names.length ? "Asking …" : "Pick a task.";

  const began = performance.now();
  const asked = names.map((name) => tasks.get(name));
  const [text, text_pair] = [$("text").value, $("text-pair").value];
  // All tasks that take the same input are asked at once.
  const requests = [
    { input: text, of: asked.filter(({ pairs }) => !pairs) },
    { input: { text, text_pair }, of: asked.filter(({ pairs }) => pairs) },
  ].filter(({ of }) => of.length);
  const answered = await Promise.all(requests.map(({ input, of }) => showAnswers(of, input, signal)));
  const spent = milliseconds(performance.now() - began);
  if (signal.aborted || !names.length) return;
  const said = new Map(answered.flatMap((one) => one.said));
  const heard = names.map((name) => `${name}: ${said.get(name) ?? "no answer"}`).join(", ");
  const number = names.filter((name) => said.get(name) !== null).length;
  const times = answered.flatMap(({ time }) => time || []).join(" and ");
  const told = `${number} of ${names.length} answered in ${spent}${times && `; ${transport.WHERE}: ${times}`}`;
  $("said").replaceChildren(told, make("span", { className: "heard" }, `. ${heard}`));
}

// Asks tasks about one input. Gives what each says, null if it does not answer, and how long that took.
async function showAnswers(asked, input, signal) {
  const noAnswer = ({ message }) => ({ rows: [], problem: message });
  const { rows, time, problem } = await transport.classify(asked, input, signal).catch(noAnswer);
  const [text, pair] = [input.text ?? input, input.text_pair];
  const answers = asked.map((task) => ({
    text,
    pair,
    ...answerOf(
      task,
      rows.find(({ model }) => model === task.task),
      problem,
    ),
  }));
  if (answers.some((answer) => answer.problem === REPLACED)) await listTasks().catch(() => {}); // said by the transport
  if (!signal.aborted) for (const [place, task] of asked.entries()) show(task, answers[place]);
  return { said: asked.map((task, place) => [task.task, answers[place].said]), time };
}

function answerOf(task, row, problem) {
  if (!row || row.status === "error") return { said: null, problem: row?.error ?? problem };
  // What is listed may be the task before it was replaced.
  const answer = readAnswer(task, row);
  return answer === null ? { said: null, problem: REPLACED } : { ...answer, status: row.status };
}

function show(task, answer) {
  const shown =
    answer.said === null
      ? [make("p", { className: "problem" }, answer.problem)]
      : [
          answer.marks?.length ? marked(answer) : make("p", { className: "label" }, answer.said),
          ...details(task, answer),
        ];
  const card = cards.get(task.task);
  card.replaceChildren(make("h2", {}, task.task), ...shown);
  setWaiting(card, false);
}

function setWaiting(card, waits) {
  card.classList.toggle("old", waits);
  card.ariaBusy = waits;
}

// What to say, the score of each label, if there are labels, and what to mark in the text. How an answer is shown depends on the types of its
// fields alone, so a kind of answer that is new needs nothing here. Null: the answer is not of the task that is listed.
function readAnswer(task, row) {
  const own = Object.entries(row)
    .filter(([name]) => !AROUND.includes(name))
    .map(([, value]) => value);
  const applying = own.find(Array.isArray);
  const marks = "entities" in row ? row.entities : null;
  if (marks) {
    if (marks.some(({ label }) => !task.labels.includes(label))) return null;
    const said = marks.map(({ label, text }) => `${label}: ${text}`).join(", ");
    return { said: said || "no entity", scores: [], marks };
  }
  if ("no_answer" in row) {
    const { answer, start, end, score } = row;
    const none = row.status === "abstained" ? "no answer is sure enough" : `no answer (${score.toFixed(2)})`;
    if (answer === null) return { said: none, scores: [] };
    return { said: answer, scores: [], marks: [{ label: "answer", start, end, score }], inPair: true };
  }
  const text = own.find((value) => typeof value === "string");
  const number = own.find((value) => typeof value === "number");
  const byLabel = own.find((value) => value !== null && typeof value === "object" && !Array.isArray(value));
  const found = row.probs
    ? task.labels.map((label, place) => [label, row.probs[place]])
    : Object.entries(byLabel ?? {});
  const scores = found.map(([label, score]) => {
    const threshold = task.thresholds?.[task.labels.indexOf(label)];
    return { label, score, threshold, applies: applying?.includes(label) ?? false };
  });
  const best = scores.reduce((one, other) => (other.score > one.score ? other : one), scores[0])?.label;
  if (applying) {
    const listed = scores.length === task.labels.length;
    if (!listed || scores.some(({ score, threshold, applies }) => score >= threshold !== applies)) return null;
    return { said: applying.join(", ") || "no label applies", scores };
  }
  if (row.probs) {
    if (row.num_classes !== task.labels.length || (row.label ?? best) !== best) return null;
    return { said: row.label ?? "no label", scores };
  }
  return { said: text ?? number?.toFixed(3) ?? "no answer", scores };
}

// The text that was asked about, with its entities or its answer.
function marked({ marks, text, pair, inPair }) {
  const characters = transport.counted(inPair ? pair : text);
  const shown = make("p", { className: "marked" });
  let at = 0;
  for (const { label, start, end, score } of marks) {
    const own = make(
      "mark",
      {},
      `${characters.slice(start, end).join("")} `,
      make("small", {}, `${label} ${score.toFixed(2)}`),
    );
    shown.append(characters.slice(at, start).join(""), own);
    at = end;
  }
  shown.append(characters.slice(at).join(""));
  return shown;
}

function* details(task, { status, scores }) {
  const note = (text) => make("p", { className: "note" }, text);
  if (status === "truncated") yield note(`truncated: the task reads at most ${task.max_length} tokens`);
  if (status === "abstained") yield note("abstained: no score is high enough");
  const first = scores.sort((one, other) => other.applies - one.applies || other.score - one.score);
  const rest = first.splice(SCORES_SHOWN);
  if (first.length) yield make("ol", {}, ...first.map(bar));
  if (rest.length) {
    yield make("details", {}, make("summary", {}, `… and ${rest.length} more`), make("ol", {}, ...rest.map(bar)));
  }
}

function bar({ label, score, threshold, applies }) {
  const drawn = make("div", { className: "bar", ariaHidden: "true" }); // the number stands beside it
  drawn.style.setProperty("--score", score);
  const row = make("li", {}, make("span", {}, label), make("span", { className: "score" }, score.toFixed(3)), drawn);
  if (threshold !== undefined) {
    drawn.style.setProperty("--threshold", threshold);
    row.className = applies ? "decided applies" : "decided";
    const told = `threshold ${threshold.toFixed(3)}`;
    row.append(make("span", { className: "threshold" }, applies ? `applies: ${told}` : told));
  }
  return row;
}

// Fills the form and asks: the first task if none is picked.
function tryExample() {
  if (!picked().length) $("tasks").querySelector("label:not([hidden]) input")?.click();
  [$("text").value, $("text-pair").value] = $("text-pair").hidden ? [EXAMPLE, ""] : EXAMPLE_PAIR;
  $("ask").requestSubmit();
}

$("example").addEventListener("click", tryExample);
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  classifyAll();
});
$("ask").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault(); // on the button it would be a second click
  $("ask").requestSubmit();
});

transport.start(listTasks);
