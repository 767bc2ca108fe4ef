"""The clients that are tested, and what each of them does against Headrace. docs/clients.md is made from it."""

import re
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
        "batches": "batches",
        "benchmark": "benchmark",
    }
)
#: What a script's comment calls the lines that docs/clients.md shows as an example.
EXAMPLES: Mapping[str, str] = MappingProxyType({"tools": "Tools", "structured": "Structured output"})
#: Plain answers, and what tests/gpu and the benchmarks run with the real engine.
WITHOUT_ENGINE = ("chat", "responses", "batches", "benchmark")


@dataclass(frozen=True, slots=True)
class Client:
    """One client, in an environment of its own.

    Attributes:
        name: as people call it.
        lock: its lock in requirements/clients, without `.txt`; None for the project's own environment; for node the
            folder in `tests/clients/node` that has its `package-lock.json`.
        script: runs its cells; a path in `tests/clients`.
        cells: what the script runs, by column.
        is_light: `bin/test` runs its cells too.
        note: what its users should know besides; a sentence or two.
    """

    name: str
    lock: str | None
    script: str
    cells: Sequence[str]
    runtime: Literal["python", "node"] = "python"
    is_light: bool = False
    note: str = ""

    @property
    def path(self) -> Path:
        return HERE / self.script

    @property
    def examples(self) -> Sequence[str]:
        """The cells that run the lines which the page shows as examples."""
        return re.findall(r"^[ \t]*(?:async |def )(example_\w+)", self.path.read_text(encoding="utf-8"), re.MULTILINE)

    @property
    def on_vllm(self) -> Sequence[str]:
        """Those of the cells that run with the real engine too, in their order: tools, structured output, streams."""
        return [cell for cell in self.cells if cell not in WITHOUT_ENGINE]


BOTH_APIS = (
    *("chat", "stream", "structured", "tools", "tools_stream"),
    *("responses", "responses_stream", "responses_structured", "responses_tools"),
)
OPENAI = (*BOTH_APIS, "batches")
OPENAI_NODE = (*BOTH_APIS, "structured_stream", "turns", "batches")
OF_VERCEL_AI_6 = "In AI SDK 6, `isStepCount` is called `stepCountIs`."
VERCEL_AI = (*BOTH_APIS, "structured_stream", "turns")

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
        BOTH_APIS,
        is_light=True,
    ),
    Client(
        "LlamaIndex",
        "llama-index",
        "python/llama_index_chat.py",
        ("chat", "stream", "structured", "tools"),
    ),
    Client(
        "LiteLLM",
        "litellm",
        "python/litellm_sdk.py",
        ("chat", "stream", "structured", "tools", "tools_stream", "responses", "responses_stream", "batches"),
        note='Batches: `create_file`, `create_batch` and `file_content`, with `custom_llm_provider="openai"`.',
    ),
    Client(
        "instructor",
        "instructor",
        "python/instructor_client.py",
        ("structured", "structured_stream", "tools", "tools_stream", "batches"),
        is_light=True,
        note=(
            "`by_tools`, the default mode, gets the same by a call of a tool. Batches: `BatchProcessor`, with the "
            "address in `OPENAI_BASE_URL`."
        ),
    ),
    Client(
        "OpenAI Agents SDK",
        "openai-agents",
        "python/agents_sdk.py",
        BOTH_APIS,
        is_light=True,
    ),
    Client(
        "Pydantic AI",
        "pydantic-ai",
        "python/pydantic_ai_agent.py",
        BOTH_APIS,
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
        ("chat", "structured", "tools"),
    ),
    Client(
        "vllm bench serve",
        None,
        "python/vllm_bench.py",
        ("benchmark",),
        note=(
            "It prints `/tokenize unavailable`, because it sends no key there, and goes on: with the model's own "
            "`--tokenizer` nothing changes."
        ),
    ),
    Client("GuideLLM", "guidellm", "python/guidellm_run.py", ("benchmark",)),
    Client("openai-node 7", "openai-7", "node/openai.mjs", OPENAI_NODE, "node"),
    Client("openai-node 6", "openai-6", "node/openai.mjs", OPENAI_NODE, "node"),
    Client("Vercel AI SDK 7", "vercel-ai-7", "node/vercel_ai.mjs", VERCEL_AI, "node", note=OF_VERCEL_AI_6),
    Client("Vercel AI SDK 6", "vercel-ai-6", "node/vercel_ai.mjs", VERCEL_AI, "node", note=OF_VERCEL_AI_6),
)
