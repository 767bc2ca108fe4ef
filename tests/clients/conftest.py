"""Stacks on the simulator and on vLLM, and what each client's script says of its cells."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from headrace.stack.stack import Stack
from headrace.stack.state_folder import StackReport
from tests.clients.catalogue import Client
from tests.clients.environments import command, inherited

#: Far longer than all cells of any client take.
DEADLINE_S = 900.0
#: By cell: what failed, or None.
Outcomes = Mapping[str, str | None]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A whole stack on the simulator. An answer takes long enough to be streamed in several pieces."""
    env = {"HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": "200", "HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true"}
    options = ("--engine", "simulator", "--without", "flower")
    with Stack(tmp_path_factory.mktemp("clients"), options, env) as stack:
        yield stack


@pytest.fixture(scope="session")
def report(stack: Stack) -> StackReport:
    return stack.report


#: The likeliest answer, always. A model as small as the demo's would fill JSON with white space up to `max_tokens`.
ENGINE_OPTIONS = {
    "override_generation_config": {"temperature": 0},
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}


@pytest.fixture(scope="session")
def report_on_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackReport]:
    """Of a whole stack with the demo's model in vLLM. Arguments of tools keep to their schema."""
    env = {
        "HEADRACE_POOLS__CHAT__DEFAULT_MAX_TOKENS": "256",
        "HEADRACE_POOLS__CHAT__ENGINE_OPTIONS": json.dumps(ENGINE_OPTIONS),
        "HEADRACE_POOLS__CHAT__TOOL_STRICT_LEVEL": "parameter",
    }
    options = ("--engine", "vllm", "--without", "flower")
    with Stack(tmp_path_factory.mktemp("clients-on-vllm"), options, env) as stack:
        yield stack.report


@pytest.fixture(scope="session")
def outcomes(report: StackReport, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Client], Outcomes]:
    """Runs a client's script once, for all of its cells and examples."""
    return once(lambda client: run(client, (*client.cells, *client.examples), report, tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def outcomes_on_vllm(
    report_on_vllm: StackReport, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Client], Outcomes]:
    """Runs a client's script once, for all of its cells that run with the real engine."""
    return once(lambda client: run(client, client.on_vllm, report_on_vllm, tmp_path_factory.mktemp("home")))


def once(run_of: Callable[[Client], Outcomes]) -> Callable[[Client], Outcomes]:
    """The same, called once for each client."""
    known: dict[str, Outcomes] = {}

    def of(client: Client) -> Outcomes:
        if client.name not in known:
            known[client.name] = run_of(client)
        return known[client.name]

    return of


def run(client: Client, cells: Sequence[str], report: StackReport, home: Path) -> Outcomes:
    """Args: home: where the client may write."""
    words = [*command(client), f"{report.url}/v1", report.api_key, report.model, report.engine, *cells]
    # A client finds no key, and no settings of this machine's user. Nothing is fetched from a hub.
    offline = {"HOME": str(home), "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    env = {name: value for name, value in inherited().items() if not name.startswith(("OPENAI_", "PYTHON"))}
    done = subprocess.run(
        words, cwd=home, env={**env, **offline}, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"cell"')]
    lost = f"The script said nothing of it:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return {**dict.fromkeys(cells, lost), **{line["cell"]: line["error"] for line in said}}
