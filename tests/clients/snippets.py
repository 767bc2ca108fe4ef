"""The snippets of the pages, as programs: each after the first snippet of its language, which makes the client."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from headrace.config import PROJECT_ROOT
from tests.clients.environments import CHECKOUT, inherited, modules_of, node

LANGUAGES = ("python", "typescript", "sh")
#: Far longer than any snippet takes.
DEADLINE_S = 120.0
_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: The modules that TypeScript's programs import; `tests/clients/node` has their lock.
MODULES = "pages"


class Snippet(NamedTuple):
    """One block of a page. Attributes: heading: of its chapter."""

    heading: str
    language: str
    text: str


def snippets(page: str) -> list[Snippet]:
    """All blocks of a page under `docs`, or of the README, in their order."""
    path = PROJECT_ROOT / ("" if page == "README.md" else "docs") / page
    _, *chapters = _HEADING.split(path.read_text(encoding="utf-8"))
    return [
        Snippet(heading, *block)
        for heading, text in zip(chapters[::2], chapters[1::2], strict=True)
        for block in _BLOCK.findall(text)
    ]


def command(language: str, text: str, folder: Path) -> list[str]:
    """What runs this program. Args: folder: where the program is written."""
    if language == "python":
        return [str(CHECKOUT.python), "-c", text]
    if language == "sh":
        return ["sh", "-eu", "-c", text]
    (folder / "node_modules").symlink_to(modules_of(MODULES) / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "program.ts").write_text(text, encoding="utf-8")
    return [str(node()), "program.ts"]


def checked_types(programs: Mapping[str, str], folder: Path) -> str:
    """What TypeScript's compiler says about these programs; empty if nothing."""
    modules = modules_of(MODULES) / "node_modules"
    (folder / "node_modules").symlink_to(modules)
    (folder / "package.json").write_text('{"type": "module"}')
    for name, text in programs.items():
        (folder / f"{name}.ts").write_text(text, encoding="utf-8")
    words = ["--noEmit", "--strict", "--target", "es2024", "--module", "nodenext", "--skipLibCheck"]
    compiler = [str(node()), str(modules / "typescript" / "bin" / "tsc"), *words]
    done = subprocess.run(
        [*compiler, *(f"{name}.ts" for name in programs)],
        cwd=folder,
        env=environment(folder, {}),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def run(language: str, text: str, folder: Path, env: Mapping[str, str]) -> str:
    """What the program prints. Raises: AssertionError if it fails, with what it said."""
    for tool in ("curl", "jq"):
        if tool in text and language == "sh" and not shutil.which(tool):
            pytest.skip(f"This machine has no {tool}.")
    words = command(language, text, folder)
    done = subprocess.run(
        words, cwd=folder, env=environment(folder, env), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def environment(home: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Of a program: none of this machine's user, and these variables."""
    kept = {name: value for name, value in inherited().items() if not name.startswith(("OPENAI_", "PYTHON"))}
    # Node would keep what it has compiled in the folder of temporary files.
    return {**kept, "HOME": str(home), "NODE_DISABLE_COMPILE_CACHE": "1", **env}
