/** What conformance means, in Node and in browsers: each case, asked of an engine. Gives what is wrong. */

/** What tasks may require that the package does not know yet: they have to be refused by its name. */
export const NOT_YET = ["kind:tokens", "kind:spans"];

/** Whether a task was refused since it requires what the package does not know yet. */
export const isNotYet = ({ message }) => NOT_YET.some((name) => message.includes(`requires ${name}`));

/**
 * @param {any} engine
 * @param {any[]} cases of its bundle and precision, as tests/conformance/cases.jsonl has them
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
      const [{ ids, typeIds, spans }] = read.windows;
      const expected = JSON.stringify([one.ids, one.type_ids, one.spans, one.truncated]);
      const found = JSON.stringify([ids, typeIds, spans, read.truncated]);
      if (found !== expected) problems.push(`${told}: read ${found}, expected ${expected}`);
      const [[logits]] = await engine.logits([{ task, read }], one.precision);
      const [answer] = await engine.classify([text], { task: one.task });
      const logitsOff = furthest(one.logits, logits);
      const scoresOff = furthest(numbersOf(one.answer), numbersOf(pick(answer, one.answer)));
      mostLogits = Math.max(mostLogits, logitsOff);
      mostScores = Math.max(mostScores, scoresOff);
      if (!(logitsOff <= one.tolerance && scoresOff <= one.tolerance)) {
        problems.push(`${told}: logits are off by ${logitsOff}, scores by ${scoresOff}`);
      }
      for (const name of ["label", "labels"]) {
        const same = JSON.stringify(answer[name]) === JSON.stringify(one.answer[name]);
        if (one.clear && !same) problems.push(`${told}: ${name} ${answer[name]}, expected ${one.answer[name]}`);
      }
    } catch (error) {
      if (!isNotYet(error)) problems.push(`${told}: ${error}`);
    }
  }
  return { problems, cases: cases.length, mostLogits, mostScores };
}

const furthest = (one, other) =>
  one.length === other.length ? Math.max(0, ...one.map((value, place) => Math.abs(value - other[place]))) : Infinity;

const pick = (answer, like) => Object.fromEntries(Object.keys(like).map((name) => [name, answer[name]]));

/** All numbers of an answer, in the order of their names. */
const numbersOf = (answer) =>
  Object.keys(answer)
    .sort()
    .flatMap((name) => {
      const value = answer[name];
      if (typeof value === "number") return [value];
      if (value === null || typeof value !== "object" || Array.isArray(value)) return [];
      return Object.keys(value)
        .sort()
        .map((label) => value[label]);
    });

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
