"""What the benchmarks of the real engine start from: the demo's model, a stack that serves it with vLLM, and a client.

Knows the system from outside: its settings, `headrace up` and HTTP. It does not know what is measured.
"""

import importlib.util
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click

from bed.load import drive, request
from bed.testbed import bearer, console
from headrace.config import PoolSettings, Settings
from headrace.domain.states import TERMINAL
from headrace.stack.model import prepare
from headrace.stack.stack import Stack

ENGINE = "vllm"
#: Nothing may expire here: seconds within which a job must start.
MAX_WAIT_S = 3600
#: Seconds that one poll holds on; connections that submit at once.
POLL_S, SUBMITTERS = 30, 16


def check_installed() -> None:
    """Raises: ClickException: vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise click.ClickException("vLLM is not installed here. This measures the real engine and nothing else.")


def demo_folder() -> Path:
    """The folder of the demo's model, which is fetched if need be."""
    return prepare(Settings.load(engine=ENGINE), console.print).folder


def settings_of(folder: Path, changes: Mapping[str, Any]) -> dict[str, str]:
    """Settings, as an environment: the model in the folder, no paid API, and these changes to the served pool."""
    pools = json.dumps({Settings.load(engine=ENGINE).pool: changes})
    return {"OPENAI_API_KEY": "", "HEADRACE_MODEL_DIR": str(folder), "HEADRACE_POOLS": pools}


def pool_of(folder: Path, changes: Mapping[str, Any]) -> PoolSettings:
    """The served pool, as a process with `settings_of` these finds it."""
    name = Settings.load(engine=ENGINE).pool
    return Settings.load(engine=ENGINE, model_dir=folder, pools={name: changes}).served_pool


@contextmanager
def real_stack(
    env: Mapping[str, str], without: Sequence[str] = ("flower",), *, has_batches: bool = False
) -> Iterator[Stack]:
    """A stack in a temporary folder, with its engine loaded.

    Args:
        without: processes of the Procfile that are left out.
        has_batches: the process `batches` runs too.
    """
    absent = (*without, *(() if has_batches else ("plugins",)))
    options = ("--engine", ENGINE, *(word for name in absent for word in ("--without", name)))
    with TemporaryDirectory(prefix="headrace-benchmark-") as state, Stack(Path(state), options, env) as stack:
        yield stack


class Generated(NamedTuple):
    """What a set of prompts took.

    Attributes:
        seconds: from the first POST until the last job could be read as succeeded.
        tokens: of all answers.
    """

    seconds: float
    prompt_tokens: int
    tokens: int


class QueueClient:
    """Submits prompts to a running stack, and waits for their answers."""

    def __init__(self, stack: Stack) -> None:
        self._url = [stack.report.url]
        self._key = bearer(stack.report.api_key)

    def generate(self, prompts: Sequence[str], max_tokens: int) -> Generated:
        """Answer all prompts, as jobs that are submitted at once and polled."""
        began = time.perf_counter()
        prompt_tokens, tokens, open_jobs = 0, 0, self.submit(prompts, max_tokens)
        while open_jobs:
            polls = (request("GET", f"/v1/jobs/{job}?wait={POLL_S}", self._key) for job in open_jobs)
            jobs = [json.loads(answer.body) for answer in drive(self._url, polls, len(open_jobs)).answers]
            ended = [job for job in jobs if job["status"] in TERMINAL]
            if failed := [job["error"] for job in ended if job["status"] != "succeeded"]:
                raise click.ClickException(f"Jobs have no answer: {failed[0]}")
            prompt_tokens += sum(job["usage"]["prompt_tokens"] for job in ended)
            tokens += sum(job["usage"]["output_tokens"] for job in ended)
            open_jobs = [job["id"] for job in jobs if job["status"] not in TERMINAL]
        return Generated(time.perf_counter() - began, prompt_tokens, tokens)

    def submit(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """The ids of the jobs."""
        bodies = (self._submit(prompt, max_tokens) for prompt in prompts)
        accepted = drive(self._url, bodies, SUBMITTERS)
        if accepted.count(202) != len(prompts):
            raise click.ClickException(f"Not all were accepted: {dict(accepted.statuses)}")
        return [json.loads(answer.body)["id"] for answer in accepted.answers]

    def _submit(self, prompt: str, max_tokens: int) -> bytes:
        body = {"prompt": prompt, "max_tokens": max_tokens, "max_wait": MAX_WAIT_S, "temperature": 0}
        return request("POST", "/v1/jobs", self._key, json.dumps(body).encode())
