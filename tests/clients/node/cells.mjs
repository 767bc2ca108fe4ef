// What all scripts share: `SCRIPT URL KEY MODEL CELL ...` runs each cell, and prints a line of JSON for each.
// It runs in every client's environment, so it imports Node's own modules alone.

import assert from "node:assert/strict";

// The address with `/v1`, an app's key, and the model of the first pool.
const [URL, KEY, MODEL, ...NAMES] = process.argv.slice(2);
export { URL, KEY, MODEL };
export const QUESTION = "What is a headrace?";

// Run those cells that are named. One that fails leaves the others alone.
export async function run(cells) {
  for (const name of NAMES) {
    let error = null;
    try {
      await cells[name]();
    } catch (caught) {
      error = String(caught?.stack ?? caught);
    }
    console.log(JSON.stringify({ cell: name, error }));
  }
}

export function checkAnswer(text) {
  assert.match(String(text), /^\[simulated\] /);
}

// Several pieces, which are an answer together. A busy machine puts tokens together, so there may be as few as two.
export function checkPieces(pieces) {
  assert(pieces.filter((piece) => piece).length > 1, JSON.stringify(pieces));
  checkAnswer(pieces.join(""));
}

// What a structured answer is to be. `city` is made with the environment's own zod.
export function checkCity(city) {
  assert.equal(typeof city.name, "string");
  assert(Number.isInteger(city.people), JSON.stringify(city));
}
