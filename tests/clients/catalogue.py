"""The clients that are tested, and what each of them does against Headrace. docs/clients.md is made from it."""

from collections.abc import Mapping
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
        "responses": "Responses",
        "responses_stream": "Responses, streamed",
        "responses_structured": "Responses, structured",
    }
)


@dataclass(frozen=True, slots=True)
class Client:
    """One client, in an environment of its own.

    Attributes:
        name: as people call it.
        lock: its lock in requirements/clients, without `.txt`; for node the folder in `tests/clients/node` that has its
            `package-lock.json`.
        script: runs its cells; a path in `tests/clients`.
        cells: what the script runs, by column: what the client uses for it, in a few words.
        is_light: `bin/test` runs its cells too.
    """

    name: str
    lock: str
    script: str
    cells: Mapping[str, str]
    runtime: Literal["python", "node"] = "python"
    is_light: bool = False

    @property
    def path(self) -> Path:
        return HERE / self.script


OPENAI = {
    "chat": "`chat.completions.create`",
    "stream": "`stream=True`, with `include_usage`",
    "structured": "`chat.completions.parse`",
    "responses": "`responses.create`",
    "responses_stream": "`responses.stream`",
    "responses_structured": "`responses.parse`",
}

CLIENTS = (
    Client("openai (Python)", "openai", "python/openai_sdk.py", OPENAI, is_light=True),
    Client("openai 1.109 (Python)", "openai-1", "python/openai_sdk.py", OPENAI, is_light=True),
)
