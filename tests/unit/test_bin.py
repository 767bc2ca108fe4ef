"""`bin/headrace`: what it keeps for itself, and what it hands on to the installer. `bin/test`: what it runs."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.config import PROJECT_ROOT
from tests.waiting import DEADLINE_S, until

#: Says what it was told, a word a line.
INSTALLER = "import sys\nprint(*sys.argv[1:], sep='\\n')\n"


def run(checkout: Path, *arguments: str, installer: str = INSTALLER) -> subprocess.CompletedProcess[str]:
    """Run a copy that lies in a checkout with this installer."""
    (checkout / "bin").mkdir()
    (checkout / "headrace" / "stack").mkdir(parents=True)
    (checkout / "headrace" / "stack" / "install.py").write_text(installer)
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


def test_what_python_compiles_is_kept_where_it_is_told_to_keep_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    names = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    installer = f"import os\nprint([os.environ.get(name) for name in {names}])\n"
    assert run(tmp_path, "up", installer=installer).stdout == f"[None, '{tmp_path}/.venv/bytecode']\n"


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--dev", "--help")])
def test_help_for_the_installation_installs_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, "install", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: bin/headrace install [--dev]\n")


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_link_on_path_leads_to_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_relative: bool
) -> None:
    home, links = tmp_path / "checkout", tmp_path / "links"
    home.mkdir()
    links.mkdir()
    run(home)
    shutil.copy(PROJECT_ROOT / "bin" / "demo", home / "bin")
    for name in ("headrace", "demo"):
        script = home / "bin" / name
        (links / f"{name}-too").symlink_to(Path("../checkout/bin") / name if is_relative else script)
        (links / name).symlink_to(f"{name}-too")
    monkeypatch.setenv("PATH", str(links), prepend=os.pathsep)

    told = [
        subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        for command in (["headrace", "queues"], ["demo", "--quiet"])
    ]

    assert [done.stderr for done in told] == ["", ""]
    assert [done.stdout.split() for done in told] == [["headrace", "queues"], ["headrace", "demo", "--quiet"]]


@pytest.mark.parametrize("arguments", [("nonsense",), ("--dev", "up"), ("--devel", "--help")])
def test_an_argument_that_the_installation_has_not_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, "install", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: bin/headrace install [--dev]" in done.stderr
    assert any(f"There is no argument '{argument}'." in done.stderr for argument in arguments)


def checkout(folder: Path, *, failing: str = "nothing", pytest_does: str = "") -> Path:
    """A copy of `bin/test` where every tool says what it was told, and one fails. Returns: the script."""
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    (folder / "bin").mkdir()
    script = shutil.copy(PROJECT_ROOT / "bin" / "test", folder / "bin")
    told = f'#!/bin/sh\necho "${{0##*/}} $*"\ncase "${{0##*/}} $*" in *"{failing}") exit 1 ;; esac\n'
    for tool in (folder / "bin" / "headrace", *(tools / name for name in ("ruff", "mypy", "lint-imports", "pytest"))):
        tool.write_text(told + (pytest_does if tool.name == "pytest" else ""))
        tool.chmod(0o755)
    return Path(script)


def checked(
    folder: Path, *arguments: str, failing: str = "nothing", pytest_does: str = "", path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `bin/test` to its end in such a checkout."""
    script = checkout(folder, failing=failing, pytest_does=pytest_does)
    env = None if path is None else {"PATH": path}
    command = [str(script), *arguments]
    return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


CHECKS = ["ruff format --check", "ruff check", "mypy ", "lint-imports "]
TESTS = "pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --durations 40 --durations-min 5"


def test_every_check_is_run_once(tmp_path: Path) -> None:
    done = checked(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = [line for line in done.stdout.split("\n") if line and not line.startswith("==")]
    assert said == ["headrace install --dev", *CHECKS, TESTS]


@pytest.mark.parametrize("failing", [*CHECKS, TESTS])
def test_a_check_that_fails_fails_all(tmp_path: Path, failing: str) -> None:
    assert checked(tmp_path, failing=failing).returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_ends_its_tests(tmp_path: Path, number: signal.Signals) -> None:
    begun = tmp_path / "begun"
    script = checkout(tmp_path, pytest_does=f": > {begun}; exec sleep 300")
    with subprocess.Popen([script], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0) as run:
        until(begun.exists, "the tests run")
        run.send_signal(number)
        assert run.wait(DEADLINE_S) == -number
    until(lambda: not group_runs(run.pid), "they have ended")


def group_runs(group: int) -> bool:
    """Whether a process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_reaches_what_the_tests_start_also_where_a_shell_runs_them_in_the_background() -> None:
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "is_interrupted"]
    ignoring = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh", *tests]
    done = subprocess.run(ignoring, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_number_of_processes_is_the_caller_s(tmp_path: Path) -> None:
    link = tmp_path / "test"
    link.symlink_to(checkout(tmp_path / "checkout"))
    run = [[str(link), "--processes", number, *more] for number, *more in (["1"], ["x"], [""], ["2", "tests/unit"])]
    done = [subprocess.run(each, cwd="/", capture_output=True, text=True, check=False) for each in run]
    assert [each.returncode for each in done] == [0, 2, 2, 2]
    assert TESTS.replace("numprocesses 3", "numprocesses 1") in done[0].stdout
    assert "takes a number from 1 on" in done[1].stderr
    assert "is for the whole suite" in done[3].stderr


def test_a_run_ends_with_what_it_skipped_and_why(tmp_path: Path) -> None:
    """Such as the tests of the real engine, where vLLM is not available."""
    file = tmp_path / "test_engine.py"
    file.write_text("import pytest\npytestmark = pytest.mark.skip('vLLM is not available')\ndef test_one(): ...\n")
    command = [sys.executable, "-m", "pytest", "-c", PROJECT_ROOT / "pyproject.toml", "--rootdir", tmp_path, file]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert "test_engine.py: vLLM is not available" in done.stdout, done.stdout


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
