"""The benchmark tools that people run against servers of chat completions, unchanged: what each says of a server.

Knows their command lines and their reports, and not which server answers. GuideLLM has an environment of its own, the
one of tests/clients.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from tests.clients.environments import python_of

TIMEOUT_S = 1200.0
#: `vllm bench`, by its module: the command `vllm` does not start where vLLM is its build for the CPU.
VLLM_BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure. Its address is without `/v1`."""

    name: str
    url: str
    key: str


@dataclass(frozen=True, slots=True)
class Load:
    """What the tool asks of a server.

    Attributes:
        tokenizer: the model's folder.
        at_once: requests that are open at the same time.
    """

    model: str
    tokenizer: Path
    requests: int
    at_once: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a tool, in its own words: requests a second, and medians over the requests in milliseconds.

    Attributes:
        tpot_ms: time per output token after the first.
    """

    throughput: float
    ttft_ms: float
    tpot_ms: float
    failed: int
    output_tokens: int


#: How a tool is run: on a server, with a load, with a seed, in an empty folder.
Tool = Callable[[Target, Load, int, Path], Run]


def vllm_bench(target: Target, load: Load, seed: int, folder: Path) -> Run:
    """`vllm bench serve`. Raises: ClickException."""
    words = {
        "--backend": "openai-chat",
        "--endpoint": "/v1/chat/completions",
        "--base-url": target.url,
        "--model": load.model,
        "--tokenizer": load.tokenizer,
        "--dataset-name": "random",
        "--random-input-len": load.prompt_tokens,
        "--random-output-len": load.output_tokens,
        "--num-prompts": load.requests,
        "--max-concurrency": load.at_once,
        "--seed": seed,
        "--result-dir": folder,
        "--result-filename": "report.json",
    }
    options = [str(word) for pair in words.items() for word in pair]
    command = [sys.executable, "-c", VLLM_BENCH_SERVE, *options, "--ignore-eos", "--save-result", "--disable-tqdm"]
    report = _report_of(command, {"OPENAI_API_KEY": target.key}, folder)
    return Run(
        report["request_throughput"],
        report["median_ttft_ms"],
        report["median_tpot_ms"],
        report["failed"],
        report["total_output_tokens"],
    )


def guidellm(target: Target, load: Load, seed: int, folder: Path) -> Run:
    """GuideLLM, with a fixed number of streams. Raises: ClickException."""
    lengths = f"prompt_tokens={load.prompt_tokens},output_tokens={load.output_tokens}"
    words = {
        "--backend": f"kind=openai_http,target={target.url},api_key={target.key},model={load.model}",
        "--tokenizer": f"kind=hf_auto,model={load.tokenizer}",
        "--data": f"kind=synthetic_text,{lengths}",
        "--profile": f"kind=concurrent,streams={load.at_once}",
        "--constraint": f"kind=max_requests,count={load.requests}",
        "--seed": f"kind=static,value={seed}",
        "--output": "kind=json,path=report.json",
    }
    program = python_of("guidellm").with_name("guidellm")
    options = [word for pair in words.items() for word in pair]
    report = _report_of([str(program), "run", "--disable-progress", *options], {}, folder)
    metrics = report["benchmarks"][0]["metrics"]
    totals = metrics["request_totals"]
    return Run(
        metrics["requests_per_second"]["successful"]["mean"],
        metrics["time_to_first_token_ms"]["successful"]["median"],
        metrics["inter_token_latency_ms"]["successful"]["median"],
        load.requests - totals["successful"],
        round(metrics["output_token_count"]["successful"]["total_sum"]),
    )


TOOLS: Mapping[str, Tool] = MappingProxyType({"vllm_bench": vllm_bench, "guidellm": guidellm})


def _report_of(command: Sequence[str], changes: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Run the tool, which fetches nothing from a hub, and read its report. Raises: ClickException: it failed."""
    inherited = dict(os.environ)  # noqa: TID251 - it is handed on whole; nothing is read from it here.
    env = {**inherited, "HF_HUB_OFFLINE": "1", **changes}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    path = folder / "report.json"
    if done.returncode or not path.is_file():
        said = f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
        raise click.ClickException(f"{Path(command[0]).name} {command[1]} failed with {done.returncode}:\n{said}")
    report: dict[str, Any] = json.loads(path.read_text())
    return report
