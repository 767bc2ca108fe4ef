// What all scripts share: `SCRIPT URL KEY MODEL ENGINE CELL ...` runs each cell, and prints a line of JSON for each.
// It runs in every client's environment, so it imports Node's own modules alone.

import assert from "node:assert/strict";

// The address with `/v1`, an app's key, the model of the first pool, and the engine that serves it.
const [URL, KEY, MODEL, ENGINE, ...NAMES] = process.argv.slice(2);
export { URL, KEY, MODEL };
// Whether the simulator answers. It calls a tool by itself, as a large model does; a small one is told to.
export const IS_SIMULATED = ENGINE === "simulator";
// A small model answers a greeting in a few words.
export const QUESTION = IS_SIMULATED ? "What is a headrace?" : "Hello.";
// The most streams that are asked for one in several pieces.
const STREAMS = 5;

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

// It is the engine's: the simulator marks its answers.
export function checkAnswer(text) {
  assert.match(String(text), IS_SIMULATED ? /^\[simulated\] / : /\S/);
}

// An answer comes in several pieces, which are the answer together. A busy machine may send one stream whole, but not
// each of several.
export async function checkStreamed(listen) {
  const heard = [];
  do {
    const pieces = (await listen()).filter((piece) => piece);
    checkAnswer(pieces.join(""));
    heard.push(pieces);
  } while (heard.at(-1).length < 2 && heard.length < STREAMS);
  assert(heard.at(-1).length > 1, JSON.stringify(heard));
}

// What a structured answer is to be. `city` is made with the environment's own zod.
export function checkCity(city) {
  assert.equal(typeof city.name, "string");
  assert(Number.isInteger(city.people), JSON.stringify(city));
}
