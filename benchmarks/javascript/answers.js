/** What Node and browsers are asked in `javascript.py`: texts with their tasks, and how long each took. */

/**
 * Ids, answer and milliseconds of each row. A row is {task, text} or {task, text, text_pair}.
 * @param {any} engine
 * @param {any[]} rows
 */
export async function answersOf(engine, rows) {
  const found = [];
  for (const { task, text, text_pair } of rows) {
    const given = text_pair === undefined ? text : [text, text_pair];
    const began = performance.now();
    const [answer] = await engine.classify([given], { task });
    const spent_ms = performance.now() - began;
    const { windows } = engine.encoder.read(given, await engine.task(task));
    found.push({
      ids: windows.flatMap(({ ids }) => ids),
      probs: answer.probs ?? [answer.score],
      said: said(answer),
      spent_ms,
    });
  }
  return found;
}

/** What is decided: a label, labels, or nothing (a score). */
const said = ({ label, labels }) => label ?? labels ?? null;
