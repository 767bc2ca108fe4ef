"""`bin/headrace`: what it keeps for itself, and what it hands on to the installer."""

import shutil
import subprocess
from pathlib import Path

import pytest

from headrace.config import PROJECT_ROOT


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a copy that lies in a checkout whose installer says what it was told, a word a line."""
    (checkout / "bin").mkdir()
    (checkout / "headrace" / "stack").mkdir(parents=True)
    (checkout / "headrace" / "stack" / "install.py").write_text("import sys\nprint(*sys.argv[1:], sep='\\n')\n")
    script = shutil.copy(PROJECT_ROOT / "bin" / "headrace", checkout / "bin")
    return subprocess.run([script, *arguments], cwd="/", capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), ["headrace"]),
        (("apps", "create", "a b"), ["headrace", "apps", "create", "a b"]),
        (("--help",), ["headrace", "--help"]),
        (("python", "-c", "print(1)"), ["python", "-c", "print(1)"]),
        (("install",), []),
        (("install", "--dev"), ["--dev"]),
        (("install", "--dev", "--dev"), ["--dev"]),
    ],
)
def test_a_command_is_handed_on_as_it_is(tmp_path: Path, arguments: tuple[str, ...], told: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:-1] == (told or [""])


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--dev", "--help")])
def test_help_for_the_installation_installs_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, "install", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: bin/headrace install [--dev]\n")


@pytest.mark.parametrize("arguments", [("nonsense",), ("--dev", "up"), ("--devel", "--help")])
def test_an_argument_that_the_installation_has_not_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, "install", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: bin/headrace install [--dev]" in done.stderr
    assert any(f"There is no argument '{argument}'." in done.stderr for argument in arguments)
