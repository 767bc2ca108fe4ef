// The AI SDK of Vercel: its default provider, which uses Responses, and chat completions.

import assert from "node:assert/strict";
import { Output, generateText, streamText } from "ai";
import { z } from "zod";
import { KEY, MODEL, QUESTION, URL, checkAnswer, checkCity, checkPieces, run } from "./cells.mjs";
// configure
import { createOpenAI } from "@ai-sdk/openai";

const openai = createOpenAI({ baseURL: URL, apiKey: KEY });
const model = openai(MODEL); // Responses; openai.chat(MODEL) for chat completions
// end

const output = Output.object({ schema: z.object({ name: z.string(), people: z.number().int() }) });

async function checkText(of) {
  const made = await generateText({ model: of, prompt: QUESTION });
  checkAnswer(made.text);
  assert(made.usage.outputTokens > 0);
}

// An error of a stream reaches the caller only by `onError`.
function streamed(options) {
  return streamText({ ...options, onError: ({ error }) => { throw error; } });
}

async function checkStream(of) {
  const pieces = [];
  const made = streamed({ model: of, prompt: QUESTION });
  for await (const piece of made.textStream) pieces.push(piece);
  checkPieces(pieces);
  assert((await made.usage).outputTokens > 0);
}

await run({
  chat: () => checkText(openai.chat(MODEL)),
  stream: () => checkStream(openai.chat(MODEL)),
  async structured() {
    checkCity((await generateText({ model: openai.chat(MODEL), prompt: QUESTION, output })).output);
  },
  async structured_stream() {
    let last = null;
    const made = streamed({ model: openai.chat(MODEL), prompt: QUESTION, output });
    for await (const part of made.partialOutputStream) last = part;
    checkCity(last);
  },
  responses: () => checkText(model),
  responses_stream: () => checkStream(model),
  async responses_structured() {
    checkCity((await generateText({ model, prompt: QUESTION, output })).output);
  },
  async turns() {
    // The provider sends what it has got as items that it refers to by their ids.
    const messages = [];
    for (const content of [QUESTION, "Why?", "Thank you."]) {
      messages.push({ role: "user", content });
      const made = streamed({ model, messages });
      const pieces = [];
      for await (const piece of made.textStream) pieces.push(piece);
      checkPieces(pieces);
      messages.push(...(await made.response).messages);
    }
    assert.equal(messages.length, 6);
  },
});
