"""A client of batches: the unchanged `openai` SDK, which uploads a file, follows its batch, and reads both results."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import openai
from openai.types import Batch

from headrace.stack.state_folder import StackReport

#: The SDK's own retries bridge the restart of `web`.
RETRIES = 12
ENDPOINT = "/v1/chat/completions"
#: One line in every 100 asks for what its endpoint refuses, and belongs into the error file.
REFUSED_EVERY = 100
#: A temperature that no endpoint takes.
TOO_WARM = 9
#: Lines begin alike in groups, as those of one prompt template do.
TEMPLATES = ("Translate into German:", "Name the colour of", "Give a synonym of", "Is this a verb or a noun:")


class Results(NamedTuple):
    """What both files of a batch have.

    Attributes:
        once: lines that are in exactly one of them, once.
        answers, errors: lines of each.
    """

    once: int
    answers: int
    errors: int


def is_refused(number: int) -> bool:
    """Whether a line asks for what its endpoint refuses."""
    return number % REFUSED_EVERY == REFUSED_EVERY - 1


def write_file(path: Path, lines: int, max_tokens: int) -> None:
    """Write the input file of a batch of chat completions."""
    with path.open("w") as file:
        for number in range(lines):
            file.write(json.dumps(_line(number, max_tokens)) + "\n")


def _line(number: int, max_tokens: int) -> dict[str, Any]:
    text = f"{TEMPLATES[number % len(TEMPLATES)]} the word of number {number}, and nothing else."
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens}
    if is_refused(number):
        body["temperature"] = TOO_WARM
    return {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body}


class BatchClient:
    """Calls one API as one app."""

    def __init__(self, report: StackReport) -> None:
        self._sdk = openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, max_retries=RETRIES)

    def begin(self, path: Path, **job: str) -> str:
        """Upload a file and make its batch. Args: job: what OpenAI's API has no field for. Returns: the batch's id."""
        file = self._sdk.files.create(file=path, purpose="batch")
        made = self._sdk.batches.create(
            input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", extra_body={"job": job} if job else None
        )
        return made.id

    def read(self, batch_id: str) -> Batch:
        """The batch as it stands."""
        return self._sdk.batches.retrieve(batch_id)

    def ended(self, batch_id: str) -> int:
        """How many lines have ended."""
        counts = self.read(batch_id).request_counts
        assert counts is not None
        return counts.completed + counts.failed

    def results(self, batch_id: str, lines: int) -> Results:
        """Both files of an ended batch. Args: lines: of its input."""
        batch = self.read(batch_id)
        answers, errors = (Counter(self._custom_ids(each)) for each in (batch.output_file_id, batch.error_file_id))
        wanted = (f"line-{number}" for number in range(lines))
        once = sum(answers[each] + errors[each] == 1 for each in wanted)
        return Results(once, answers.total(), errors.total())

    def _custom_ids(self, file_id: str | None) -> Iterator[str]:
        if file_id is None:
            return
        for line in self._sdk.files.content(file_id).content.splitlines():
            yield json.loads(line)["custom_id"]

    def close(self) -> None:
        """Close its connections."""
        self._sdk.close()
