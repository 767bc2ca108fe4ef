"""The clients that are tested, and what each of them does against Headrace. docs/clients.md is made from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

HERE = Path(__file__).resolve().parent

#: What a cell shows, by its name: the columns of the table.
COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "chat": "chat",
        "stream": "streamed",
        "structured": "structured output",
        "structured_stream": "structured, streamed",
        "tools": "tools",
        "tools_stream": "tools, streamed",
        "responses": "Responses",
        "responses_stream": "Responses, streamed",
        "responses_structured": "Responses, structured",
        "responses_tools": "Responses, tools",
        "turns": "several turns",
        "benchmark": "benchmark",
    }
)
#: Plain answers, and what tests/gpu and the benchmarks run with the real engine.
WITHOUT_ENGINE = ("chat", "responses", "benchmark")


@dataclass(frozen=True, slots=True)
class Client:
    """One client, in an environment of its own.

    Attributes:
        name: as people call it.
        lock: its lock in requirements/clients, without `.txt`; None for the project's own environment; for node the
            folder in `tests/clients/node` that has its `package-lock.json`.
        script: runs its cells; a path in `tests/clients`.
        cells: what the script runs, by column: what the client uses for it, in a few words.
        is_light: `bin/test` runs its cells too.
        note: what its users should know besides; a sentence or two.
    """

    name: str
    lock: str | None
    script: str
    cells: Mapping[str, str]
    runtime: Literal["python", "node"] = "python"
    is_light: bool = False
    note: str = ""

    @property
    def path(self) -> Path:
        return HERE / self.script

    @property
    def on_vllm(self) -> Sequence[str]:
        """Those of the cells that run with the real engine too, in their order: tools, structured output, streams."""
        return [cell for cell in self.cells if cell not in WITHOUT_ENGINE]


OPENAI = {
    "chat": "`chat.completions.create`",
    "stream": "`stream=True`, with `include_usage`",
    "structured": "`chat.completions.parse`",
    "tools": "`tools`, and the outputs as turns of the role `tool`",
    "tools_stream": '`chat.completions.stream`, `tool_choice="required"`',
    "responses": "`responses.create`",
    "responses_stream": "`responses.stream`",
    "responses_structured": "`responses.parse`",
    "responses_tools": "`function_call_output` after `previous_response_id`",
}

OPENAI_NODE = {
    "chat": "`chat.completions.create`",
    "stream": "`stream: true`, with `include_usage`",
    "structured": "`chat.completions.parse`, with zod",
    "structured_stream": "`chat.completions.stream`",
    "tools": "`chat.completions.runTools`, with zod",
    "tools_stream": "`chat.completions.runTools`, `stream: true`",
    "responses": "`responses.create`",
    "responses_stream": "`responses.stream`",
    "responses_structured": "`responses.parse`, with zod",
    "responses_tools": "`function_call_output`, after `previous_response_id` and after the call sent back",
    "turns": "`previous_response_id`, streamed",
}
OF_RUN_TOOLS = (
    "With the demo's model in vLLM, `runTools` is told which function to call, and ends once it has run: a model as "
    "small as that does not call one by itself."
)
VERCEL_AI = {
    "chat": "`generateText` with `openai.chat`",
    "stream": "`streamText`",
    "structured": "`Output.object`",
    "structured_stream": "`partialOutputStream`",
    "tools": "`tool`, in several steps",
    "tools_stream": "`streamText` with `tool`",
    "responses": "`generateText` with `openai`, the default",
    "responses_stream": "`streamText`",
    "responses_structured": "`Output.object`",
    "responses_tools": "`tool`, also streamed",
    "turns": "`streamText` with the messages of earlier answers, which the provider sends as `item_reference`",
}

CLIENTS = (
    Client(
        "openai (Python)",
        "openai",
        "python/openai_sdk.py",
        OPENAI,
        is_light=True,
    ),
    Client("openai 1.109 (Python)", "openai-1", "python/openai_sdk.py", OPENAI, is_light=True),
    Client(
        "LangChain",
        "langchain",
        "python/langchain_chat.py",
        {
            "chat": "`invoke`",
            "stream": "`stream`",
            "structured": "`with_structured_output`",
            "tools": "`bind_tools`",
            "tools_stream": "`bind_tools`",
            "responses": "`use_responses_api=True`",
            "responses_stream": "`stream`",
            "responses_structured": "`with_structured_output`",
            "responses_tools": "`bind_tools`",
        },
        is_light=True,
    ),
    Client(
        "LlamaIndex",
        "llama-index",
        "python/llama_index_chat.py",
        {
            "chat": "`chat`",
            "stream": "`stream_chat`",
            "structured": "`as_structured_llm`",
            "tools": "`chat_with_tools`",
        },
    ),
    Client(
        "LiteLLM",
        "litellm",
        "python/litellm_sdk.py",
        {
            "chat": "`completion`",
            "stream": "`stream=True`",
            "structured": "a Pydantic model as `response_format`",
            "tools": "`tools`",
            "tools_stream": "`stream_chunk_builder`",
            "responses": "`responses`",
            "responses_stream": "`stream=True`",
        },
    ),
    Client(
        "instructor",
        "instructor",
        "python/instructor_client.py",
        {
            "structured": "`Mode.JSON_SCHEMA`",
            "structured_stream": "`create_partial`",
            "tools": "the default mode",
            "tools_stream": "the default mode, `create_partial`",
        },
        is_light=True,
    ),
    Client(
        "OpenAI Agents SDK",
        "openai-agents",
        "python/agents_sdk.py",
        {
            "chat": "`OpenAIChatCompletionsModel`",
            "stream": "`Runner.run_streamed`",
            "structured": "`output_type`",
            "tools": "`function_tool`",
            "tools_stream": "`function_tool`",
            "responses": "`OpenAIResponsesModel`",
            "responses_stream": "`Runner.run_streamed`",
            "responses_structured": "`output_type`",
            "responses_tools": "`function_tool`, also streamed",
        },
        is_light=True,
    ),
    Client(
        "Pydantic AI",
        "pydantic-ai",
        "python/pydantic_ai_agent.py",
        {
            "chat": "`OpenAIChatModel`",
            "stream": "`run_stream`",
            "structured": "`NativeOutput`",
            "tools": "`tools` and the default `output_type`",
            "tools_stream": "the default `output_type`",
            "responses": "`OpenAIResponsesModel`",
            "responses_stream": "`run_stream`",
            "responses_structured": "`NativeOutput`",
            "responses_tools": "`tools` and the default `output_type`",
        },
        is_light=True,
        note=(
            "With the demo's model in vLLM, tools are the output tool of the default `output_type` alone: told to call "
            "one of two tools, a model as small as that calls the same one for ever."
        ),
    ),
    Client(
        "DSPy",
        "dspy",
        "python/dspy_program.py",
        {"chat": "`dspy.LM`", "structured": "`JSONAdapter`", "tools": "`dspy.ToolCalls`"},
    ),
    Client(
        "vllm bench serve",
        None,
        "python/vllm_bench.py",
        {"benchmark": "`--dataset-name random`"},
        note=(
            "Before it begins, it compares its tokenizer with the server's, and sends no key there. Headrace counts "
            "tokens for known apps alone, so the tool prints `/tokenize unavailable` and goes on: with the model's own "
            "`--tokenizer` nothing changes."
        ),
    ),
    Client("GuideLLM", "guidellm", "python/guidellm_run.py", {"benchmark": "`kind=synthetic_text`"}),
    Client("openai-node 7", "openai-7", "node/openai.mjs", OPENAI_NODE, "node", note=OF_RUN_TOOLS),
    Client("openai-node 6", "openai-6", "node/openai.mjs", OPENAI_NODE, "node", note=OF_RUN_TOOLS),
    Client("Vercel AI SDK 7", "vercel-ai-7", "node/vercel_ai.mjs", VERCEL_AI, "node"),
    Client("Vercel AI SDK 6", "vercel-ai-6", "node/vercel_ai.mjs", VERCEL_AI, "node"),
)
