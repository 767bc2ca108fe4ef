"""`bin/headrace`: what it keeps for itself, and what it hands on to the installer. `bin/test`: what it runs."""

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


def checked(
    checkout: Path, *arguments: str, failing: str = "nothing", path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a copy of `bin/test` where every tool says what it was told, and one fails."""
    tools = checkout / ".venv" / "bin"
    tools.mkdir(parents=True)
    (checkout / "bin").mkdir()
    script = shutil.copy(PROJECT_ROOT / "bin" / "test", checkout / "bin")
    told = f'#!/bin/sh\necho "${{0##*/}} $*"\ncase "${{0##*/}} $*" in *"{failing}") exit 1 ;; esac\n'
    for tool in (checkout / "bin" / "headrace", *(tools / name for name in ("ruff", "mypy", "lint-imports", "pytest"))):
        tool.write_text(told)
        tool.chmod(0o755)
    env = None if path is None else {"PATH": path}
    return subprocess.run([script, *arguments], cwd="/", env=env, capture_output=True, text=True, check=False)


KOMBU = "pytest -p no:cacheprovider tests/third_party"
PROCESSES = "pytest -p no:cacheprovider tests/e2e"
OTHERS = "pytest --ignore tests/third_party --ignore tests/e2e"
CHECKS = ["ruff format --check", "ruff check", "mypy ", "lint-imports ", OTHERS, KOMBU, PROCESSES]


def test_every_check_is_run(tmp_path: Path) -> None:
    done = checked(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = [line for line in done.stdout.split("\n") if line and not line.startswith("==")]
    assert said == ["headrace install --dev", *CHECKS]


@pytest.mark.parametrize("failing", CHECKS)
def test_a_check_that_fails_fails_all(tmp_path: Path, failing: str) -> None:
    assert checked(tmp_path, failing=failing).returncode == 1


def test_arguments_go_to_pytest(tmp_path: Path) -> None:
    done = checked(tmp_path, "tests/unit", "-k", "routing")
    assert done.returncode == 0
    assert done.stdout.endswith("\npytest tests/unit -k routing\n")


def test_all_clients_run_where_they_are_asked_for(tmp_path: Path) -> None:
    done = checked(tmp_path, "--clients", "-k", "openai")
    assert done.returncode == 0
    files = " ".join(f"tests/clients/test_{name}.py" for name in ("light", "heavy", "on_vllm"))
    assert done.stdout.endswith(f"\npytest {files} -k openai\n")


@pytest.mark.parametrize(
    ("user", "said"), [("1000", "As root: apt-get install pgbouncer"), ("0", "pytest tests/system")]
)
def test_checks_with_packages_of_debian_install_what_is_missing_or_fail_and_name_it(
    tmp_path: Path, user: str, said: str
) -> None:
    """As root, apt-get is told what is missing; another user is told to."""
    stand_ins = tmp_path / "debian"
    stand_ins.mkdir()
    for name, script in {"id": f"echo {user}", "dpkg-query": "exit 1", "apt-get": 'echo "apt-get $*"'}.items():
        (stand_ins / name).write_text(f"#!/bin/sh\n{script}\n")
        (stand_ins / name).chmod(0o755)
    (tmp_path / "tests" / "system").mkdir(parents=True)
    (tmp_path / "tests" / "system" / "debian.txt").write_text("# Why.\npgbouncer # A comment.\n")

    done = checked(tmp_path, "--system", path=f"{stand_ins}:/usr/bin:/bin")

    assert done.returncode == (0 if user == "0" else 1)
    assert said in done.stdout + done.stderr
    installs = "apt-get install -y -qq --no-install-recommends pgbouncer\n"
    assert (installs in done.stdout) == (user == "0")
