// openai-node: chat completions and Responses.

import assert from "node:assert/strict";
import { z } from "zod";
import { zodFunction, zodResponseFormat, zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { IS_SIMULATED, KEY, MODEL, QUESTION, URL, checkAnswer, checkCity, checkStreamed, run } from "./cells.mjs";
// configure
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: URL, apiKey: KEY });
// end

const City = z.object({ name: z.string().max(20), people: z.number().int().min(1).max(99) });
const messages = [{ role: "user", content: QUESTION }];

// A response that was streamed has no `output_text` in openai-node 6.
function textOf(response) {
  return response.output.at(-1).content[0].text;
}

const turn = { name: "turn", description: "Turns a wheel.", parameters: z.object({ paddles: z.number().int().min(1).max(99) }) };
const forced = IS_SIMULATED ? {} : { tool_choice: "required" };

// The SDK runs the function and sends its output back, until the model answers. Returns: how often it was run.
async function runTool(options) {
  const turned = [];
  const tools = [zodFunction({ ...turn, function: ({ paddles }) => turned.push(paddles) && `${paddles} turn.` })];
  // A small model is told the function. Then the SDK ends with the function's output, and asks no more.
  const told = IS_SIMULATED ? {} : { tool_choice: { type: "function", function: { name: turn.name } } };
  const runner = client.chat.completions.runTools({ model: MODEL, messages, tools, ...told, ...options });
  if (IS_SIMULATED) checkAnswer(await runner.finalContent());
  else await runner.done();
  assert.equal(turned.length, 1);
  assert(Number.isInteger(turned[0]), JSON.stringify(turned));
}

await run({
  async chat() {
    const completion = await client.chat.completions.create({ model: MODEL, messages });
    checkAnswer(completion.choices[0].message.content);
    assert(completion.usage.completion_tokens > 0);
  },
  async stream() {
    const options = { stream: true, stream_options: { include_usage: true } };
    await checkStreamed(async () => {
      const pieces = [];
      let usage = null;
      for await (const chunk of await client.chat.completions.create({ model: MODEL, messages, ...options })) {
        pieces.push(chunk.choices[0]?.delta?.content);
        usage = chunk.usage ?? usage;
      }
      assert(usage.completion_tokens > 0);
      return pieces;
    });
  },
  async structured() {
    const response_format = zodResponseFormat(City, "city");
    const completion = await client.chat.completions.parse({ model: MODEL, messages, response_format });
    checkCity(completion.choices[0].message.parsed);
  },
  async structured_stream() {
    const response_format = zodResponseFormat(City, "city");
    const stream = client.chat.completions.stream({ model: MODEL, messages, response_format });
    checkCity((await stream.finalChatCompletion()).choices[0].message.parsed);
  },
  tools: () => runTool({}),
  tools_stream: () => runTool({ stream: true }),
  async responses() {
    const response = await client.responses.create({ model: MODEL, input: QUESTION });
    checkAnswer(response.output_text);
    assert.equal(response.status, "completed");
  },
  async responses_stream() {
    await checkStreamed(async () => {
      const pieces = [];
      const stream = client.responses.stream({ model: MODEL, input: QUESTION });
      stream.on("response.output_text.delta", (event) => pieces.push(event.delta));
      assert.equal(textOf(await stream.finalResponse()), pieces.join(""));
      return pieces;
    });
  },
  async responses_structured() {
    const text = { format: zodTextFormat(City, "city") };
    const response = await client.responses.parse({ model: MODEL, input: QUESTION, text });
    checkCity(response.output_parsed);
  },
  async responses_tools() {
    const tools = [zodResponsesFunction(turn)];
    const response = await client.responses.parse({ model: MODEL, input: QUESTION, tools, ...forced });
    const [call] = response.output.filter((item) => item.type === "function_call");
    assert(Number.isInteger(JSON.parse(call.arguments).paddles), JSON.stringify(call));
    const output = { type: "function_call_output", call_id: call.call_id, output: "It turns." };
    const question = { role: "user", content: QUESTION };
    for (const following of [
      { input: [output], previous_response_id: response.id },
      { input: [question, ...response.output, output] },
    ]) {
      checkAnswer((await client.responses.create({ model: MODEL, tools, ...following })).output_text);
    }
  },
  async turns() {
    let previous_response_id = undefined;
    for (const input of [QUESTION, "Why?", "Thank you."]) {
      const stream = client.responses.stream({ model: MODEL, input, previous_response_id });
      const response = await stream.finalResponse();
      checkAnswer(textOf(response));
      previous_response_id = response.id;
    }
    const items = await client.responses.inputItems.list(previous_response_id);
    assert.equal(items.data.length, 5, "the last response was made from three questions and two answers");
  },
  async batches() {
    const body = { model: MODEL, messages, max_tokens: 16 };
    const line = (custom_id) => JSON.stringify({ custom_id, method: "POST", url: "/v1/chat/completions", body });
    const lines = await toFile(Buffer.from(["a", "b", "c"].map(line).join("\n")), "lines.jsonl");
    const file = await client.files.create({ file: lines, purpose: "batch" });
    const asked = { input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" };
    let batch = await client.batches.create(asked);
    for (let tries = 0; ["validating", "in_progress", "finalizing"].includes(batch.status) && tries < 600; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      batch = await client.batches.retrieve(batch.id);
    }
    assert.equal(batch.status, "completed");
    const text = await (await client.files.content(batch.output_file_id)).text();
    const results = text.trim().split("\n").map((each) => JSON.parse(each));
    assert.deepEqual(results.map((each) => each.custom_id).sort(), ["a", "b", "c"]);
    for (const { response } of results) checkAnswer(response.body.choices[0].message.content);
  },
  async example_tools() {
    // example: tools
    // import { z } from "zod";
    // import { zodFunction } from "openai/helpers/zod";
    const weather = zodFunction({
      name: "weather",
      parameters: z.object({ city: z.string() }),
      function: ({ city }) => `Sunny in ${city}.`,
    });
    const messages = [{ role: "user", content: "What is the weather in Paris?" }];
    const runner = client.chat.completions.runTools({ model: MODEL, messages, tools: [weather] });
    runner.on("functionToolCall", (call) => console.log("calls", call.name));
    console.log(await runner.finalContent());
    // end
    checkAnswer(await runner.finalContent());
    assert.deepEqual(runner.messages.map((each) => each.role), ["user", "assistant", "tool", "assistant"]);
  },
  async example_structured() {
    // example: structured
    // import { z } from "zod";
    // import { zodResponseFormat } from "openai/helpers/zod";
    const City = z.object({ name: z.string(), people: z.number().int() });
    const completion = await client.chat.completions.parse({
      model: MODEL,
      messages: [{ role: "user", content: "Describe Paris." }],
      response_format: zodResponseFormat(City, "city"),
    });
    console.log(completion.choices[0].message.parsed);
    // end
    checkCity(completion.choices[0].message.parsed);
  },
});
