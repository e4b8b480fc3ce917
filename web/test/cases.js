/** The conformance test, in Node and in browsers: run each case with an engine, and return the differences. */

/**
 * @param {any} engine
 * @param {any[]} cases the cases for its bundle and precision, from tests/conformance/cases.jsonl
 * @returns {Promise<{problems: string[], cases: number, mostLogits: number, mostScores: number}>}
 */
export async function failures(engine, cases) {
  const problems = [];
  let mostLogits = 0;
  let mostScores = 0;
  for (const one of cases) {
    const text = "text_pair" in one ? [one.text, one.text_pair] : one.text;
    const told = `${one.bundle} ${one.precision} ${one.task} ${JSON.stringify(text).slice(0, 80)}`;
    try {
      const task = await engine.task(one.task);
      const read = engine.encoder.read(text, task);
      const units = unitsOf(task.kind.reading?.second ? one.text_pair : one.text);
      const expected = JSON.stringify([
        [one, ...(one.more ?? [])].map((window) => windowOf(window, units)),
        one.truncated,
      ]);
      const found = JSON.stringify([
        read.windows.map(({ ids, typeIds, spans, places }) => [ids, typeIds, spans, places]),
        read.truncated,
      ]);
      if (found !== expected) problems.push(`${told}: read ${found}, expected ${expected}`);
      const [logits] = await engine.logits([{ task, read }], one.precision);
      const [answer] = await engine.classify([text], { task: one.task });
      const [right, given] = [inUnits(one.answer, units), pick(answer, one.answer)].map(split);
      const logitsOff = furthest(
        one.logits.flat(),
        logits.flatMap((values) => [...values]),
      );
      const same = right.words === given.words;
      if (one.clear && !same) problems.push(`${told}: ${given.words}, expected ${right.words}`);
      const scoresOff =
        same || right.numbers.length === given.numbers.length ? furthest(right.numbers, given.numbers) : 0;
      mostLogits = Math.max(mostLogits, logitsOff);
      mostScores = Math.max(mostScores, scoresOff);
      if (!(logitsOff <= one.tolerance && scoresOff <= one.tolerance)) {
        problems.push(`${told}: logits are off by ${logitsOff}, scores by ${scoresOff}`);
      }
    } catch (error) {
      problems.push(`${told}: ${error}`);
    }
  }
  return { problems, cases: cases.length, mostLogits, mostScores };
}

const furthest = (one, other) =>
  one.length === other.length ? Math.max(0, ...one.map((value, place) => Math.abs(value - other[place]))) : Infinity;

const pick = (answer, like) => Object.fromEntries(Object.keys(like).map((name) => [name, answer[name]]));

/** The scores of an answer, and everything else as text, sorted by name. */
function split(answer) {
  const [numbers, words] = [[], []];
  const visit = (name, value) => {
    if (typeof value === "number" && !PLACES.includes(name)) numbers.push(value);
    else if (value === null || typeof value !== "object") words.push([name, value]);
    else for (const own of Object.keys(value).sort()) visit(own, value[own]);
  };
  visit("", answer);
  return { numbers, words: JSON.stringify(words) };
}

/** The places of an answer in UTF-16 units; `units` is the unit at which each character begins. */
const inUnits = (value, units) =>
  value === null || typeof value !== "object"
    ? value
    : Array.isArray(value)
      ? value.map((own) => inUnits(own, units))
      : Object.fromEntries(
          Object.entries(value).map(([name, own]) => [
            name,
            PLACES.includes(name) && own !== null ? units[own] : inUnits(own, units),
          ]),
        );

const PLACES = ["start", "end"];

/** The UTF-16 unit at which each character of a text begins, and the unit after the last. */
export function unitsOf(text) {
  const found = [0];
  for (const character of text) found.push(found[found.length - 1] + character.length);
  return found;
}

/** A window of a case, with its words in UTF-16 units. */
const windowOf = ({ ids, type_ids, spans, words = [] }, units) => [
  ids,
  type_ids,
  spans,
  words.map((ends) => ends.map((place) => units[place])),
];

/** Cases by "bundle/precision". */
export function byEngine(lines) {
  const found = new Map();
  for (const one of lines
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))) {
    const key = `${one.bundle}/${one.precision}`;
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(one);
  }
  return found;
}
