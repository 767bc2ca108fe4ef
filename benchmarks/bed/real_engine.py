"""What the benchmarks of the real engine start from: the demo's model, and a stack that serves it with vLLM.

Knows the system from outside: its settings and `headrace up`. It does not know what is measured.
"""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from bed.testbed import console
from headrace.config import PoolSettings, Settings
from headrace.stack.models.model import prepare
from headrace.stack.stack import Stack

ENGINE = "vllm"


def check_installed() -> None:
    """Raise ClickException where there is no vLLM."""
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
def real_stack(env: Mapping[str, str], without: Sequence[str] = ("flower",)) -> Iterator[Stack]:
    """A stack in a temporary folder, with its engine loaded.

    Args:
        without: processes of the Procfile that are left out.
    """
    options = ("--engine", ENGINE, *(word for name in without for word in ("--without", name)))
    with TemporaryDirectory(prefix="headrace-benchmark-") as state, Stack(Path(state), options, env) as stack:
        yield stack
