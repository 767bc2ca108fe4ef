// The AI SDK of Vercel: its default provider, which uses Responses, and chat completions.

import assert from "node:assert/strict";
import * as ai from "ai";
import { z } from "zod";
import { IS_SIMULATED, KEY, MODEL, QUESTION, URL, checkAnswer, checkCity, checkStreamed, run } from "./cells.mjs";
// configure
import { createOpenAI } from "@ai-sdk/openai";

const openai = createOpenAI({ baseURL: URL, apiKey: KEY });
const model = openai(MODEL); // Responses; openai.chat(MODEL) for chat completions
// end

const { Output, generateText, streamText, tool } = ai;
// Its name in AI SDK 6.
const isStepCount = ai.isStepCount ?? ai.stepCountIs;
const output = Output.object({ schema: z.object({ name: z.string().max(20), people: z.number().int().min(1).max(99) }) });

async function checkText(of) {
  const made = await generateText({ model: of, prompt: QUESTION });
  checkAnswer(made.text);
  assert(made.usage.outputTokens > 0);
}

// An error of a stream reaches the caller only by `onError`.
function streamed(options) {
  return streamText({ ...options, onError: ({ error }) => { throw error; } });
}

function checkStream(of) {
  return checkStreamed(async () => {
    const pieces = [];
    const made = streamed({ model: of, prompt: QUESTION });
    for await (const piece of made.textStream) pieces.push(piece);
    assert((await made.usage).outputTokens > 0);
    return pieces;
  });
}

// The SDK runs the tool and sends its output back, until the model answers.
async function useTool(of, ask) {
  const turned = [];
  const turn = tool({
    description: "Turns a wheel.",
    inputSchema: z.object({ paddles: z.number().int().min(1).max(99) }),
    execute: ({ paddles }) => turned.push(paddles) && `${paddles} paddles turn.`,
  });
  // A small model is told to call it in the first step, and to answer in the next one.
  const told = ({ stepNumber }) => (IS_SIMULATED ? {} : { toolChoice: stepNumber ? "none" : "required" });
  const made = await ask({ model: of, prompt: QUESTION, tools: { turn }, stopWhen: isStepCount(3), prepareStep: told });
  checkAnswer(await made.text);
  assert.equal(turned.length, 1);
  assert(Number.isInteger(turned[0]), JSON.stringify(turned));
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
  tools: () => useTool(openai.chat(MODEL), generateText),
  tools_stream: () => useTool(openai.chat(MODEL), streamed),
  responses: () => checkText(model),
  responses_stream: () => checkStream(model),
  async responses_structured() {
    checkCity((await generateText({ model, prompt: QUESTION, output })).output);
  },
  async responses_tools() {
    await useTool(model, generateText);
    await useTool(model, streamed);
  },
  async turns() {
    // The provider sends what it has got as items that it refers to by their ids.
    const messages = [];
    for (const content of [QUESTION, "Why?", "Thank you."]) {
      messages.push({ role: "user", content });
      const made = streamed({ model, messages });
      checkAnswer(await made.text);
      messages.push(...(await made.response).messages);
    }
    assert.equal(messages.length, 6);
  },
  async example_tools() {
    // example: tools
    // import { generateText, isStepCount, tool } from "ai";
    // import { z } from "zod";
    const weather = tool({
      description: "Today's weather.",
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => `Sunny in ${city}.`,
    });
    const made = await generateText({
      model,
      prompt: "What is the weather in Paris?",
      tools: { weather },
      stopWhen: isStepCount(5),
    });
    console.log(made.text);
    // end
    checkAnswer(made.text);
    assert.equal(made.steps.length, 2);
  },
  async example_structured() {
    // example: structured
    // import { generateText, Output } from "ai";
    // import { z } from "zod";
    const City = z.object({ name: z.string(), people: z.number().int() });
    const made = await generateText({ model, prompt: "Describe Paris.", output: Output.object({ schema: City }) });
    console.log(made.output);
    // end
    checkCity(made.output);
  },
});
