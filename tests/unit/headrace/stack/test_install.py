import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from headrace.config import PROJECT_ROOT
from headrace.stack import install
from headrace.stack.install import (
    Checkout,
    Installer,
    InstallError,
    InstallProgress,
    ensure,
    main,
    only_one,
    uv_settings,
)

LOCKS = ("uv", "core", "backtest", "torch-cpu", "cpu", "cuda", "dev", "sdk-floor")


class Machine:
    """Stands in for the programs that the installer runs: records them, and fails those it is told to."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.ran: list[str] = []
        self.fails: Callable[[str], bool] = lambda command: "--dry-run" in command
        self.pip_settings = ""

    def make_venv(self) -> None:
        self.ran.append("venv")
        self.checkout.uv.parent.mkdir(parents=True, exist_ok=True)
        self.checkout.python.touch()
        self.checkout.uv.touch()

    def run(self, command: tuple[str, ...], quiet: bool = False) -> subprocess.CompletedProcess[str]:
        line = " ".join(command).replace(str(self.checkout.root), "")
        self.ran.append(line)
        return subprocess.CompletedProcess(command, int(self.fails(line)), stdout=self.pip_settings)

    def installed(self) -> list[str]:
        """Name the locks that were installed, in order, and `project`; forget them."""
        lines = [line for line in self.ran if " install " in line and "--dry-run" not in line]
        self.ran.clear()
        return [
            word for line in lines for word in (*LOCKS, "editable") if f"/{word}.txt" in line or f"--{word}" in line
        ]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    (tmp_path / "requirements").mkdir()
    for name in LOCKS:
        (tmp_path / "requirements" / f"{name}.txt").write_text(name)
    (tmp_path / "pyproject.toml").touch()
    return Checkout(tmp_path)


@pytest.fixture
def machine(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(checkout)
    monkeypatch.setattr(Installer, "make_venv", lambda _: machine.make_venv())
    monkeypatch.setattr(Installer, "run", lambda _, *args, **kwargs: machine.run(*args, **kwargs))
    monkeypatch.setattr(install, "platform", lambda: "Linux x86_64")
    monkeypatch.setattr(install, "check_platform", lambda: None)
    return machine


def test_a_second_start_runs_nothing(checkout: Checkout, machine: Machine) -> None:
    ensure(checkout, dev=False)
    assert machine.installed() == ["uv", "core", "backtest", "cpu", "editable"]

    ensure(checkout, dev=False)
    assert machine.ran == []


def test_development_tools_are_added_to_the_same_environment(checkout: Checkout, machine: Machine) -> None:
    ensure(checkout, dev=False)
    machine.ran.clear()

    ensure(checkout, dev=True)
    assert machine.installed() == ["dev", "sdk-floor"]

    ensure(checkout, dev=True)
    ensure(checkout, dev=False)
    assert machine.ran == []


def test_a_changed_lock_makes_the_environment_anew(checkout: Checkout, machine: Machine) -> None:
    ensure(checkout, dev=True)
    machine.ran.clear()

    (checkout.locks / "cpu.txt").write_text("newer")
    ensure(checkout, dev=False)

    assert machine.ran[0] == "venv"
    assert machine.installed() == ["uv", "core", "backtest", "cpu", "editable"]
    assert "dev" not in checkout.held()


def test_a_changed_declaration_installs_the_project_alone(checkout: Checkout, machine: Machine) -> None:
    ensure(checkout, dev=False)
    machine.ran.clear()

    (checkout.root / "pyproject.toml").write_text("# changed")
    ensure(checkout, dev=False)

    assert machine.installed() == ["editable"]


def test_another_python_or_place_makes_another_environment(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = checkout.wanted(dev=False)["base"]

    monkeypatch.setattr("sys.implementation.cache_tag", "cpython-314")
    assert checkout.wanted(dev=False)["base"] != before
    monkeypatch.undo()

    moved = checkout.root.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    assert Checkout(moved).wanted(dev=False)["base"] != before


@pytest.mark.parametrize("at", ["/core.txt", "/dev.txt"])
def test_an_interrupted_installation_is_not_taken_for_whole(checkout: Checkout, machine: Machine, at: str) -> None:
    def interrupt(command: str) -> bool:
        if at in command:
            raise KeyboardInterrupt
        return False

    ensure(checkout, dev=False)
    (checkout.locks / "core.txt").write_text("newer")
    machine.fails = interrupt
    with pytest.raises(KeyboardInterrupt):
        ensure(checkout, dev=True)

    assert checkout.held() == {}


@pytest.mark.parametrize("stamp", ["", "{", '{"base": "of another"}'])
def test_a_stamp_that_does_not_match_is_not_believed(checkout: Checkout, machine: Machine, stamp: str) -> None:
    ensure(checkout, dev=False)
    machine.ran.clear()

    checkout.stamp.write_text(stamp)
    ensure(checkout, dev=False)

    assert machine.ran[0] == "venv"


def test_a_link_to_another_checkout_s_environment_is_left_alone(
    checkout: Checkout, machine: Machine, tmp_path: Path
) -> None:
    ensure(checkout, dev=False)
    stamp = checkout.stamp.read_text()
    other = Checkout(tmp_path / "other")
    other.locks.mkdir(parents=True)
    for name in LOCKS:
        shutil.copy(checkout.locks / f"{name}.txt", other.locks)
    shutil.copy(checkout.root / "pyproject.toml", other.root)
    other.venv.symlink_to(checkout.venv)
    machine.ran.clear()

    with pytest.raises(InstallError, match="is a link"):
        ensure(other, dev=False)

    assert machine.ran == []
    assert checkout.stamp.read_text() == stamp


def test_pip_does_the_work_when_uv_cannot(checkout: Checkout, machine: Machine) -> None:
    machine.fails = lambda command: "/bin/uv " in command

    ensure(checkout, dev=False)

    assert any("-m pip install" in line and "/core.txt" in line for line in machine.ran)
    assert checkout.held()


def test_a_failed_installation_says_so_and_leaves_no_stamp(checkout: Checkout, machine: Machine) -> None:
    machine.fails = lambda command: "/core.txt" in command

    with pytest.raises(InstallError, match="tries again"):
        ensure(checkout, dev=False)

    assert checkout.held() == {}


def test_a_cpu_build_of_torch_is_taken_when_offered(
    checkout: Checkout, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fails = lambda _: False

    ensure(checkout, dev=False)

    assert machine.installed() == ["uv", "torch-cpu", "core", "backtest", "cpu", "editable"]
    assert "CPU build of torch" in capsys.readouterr().err


@pytest.mark.parametrize(("torch", "needs_cuda"), [("torch-2.13.0", True), ("torch-2.13.0+cpu", False)])
def test_nvidia_libraries_are_installed_for_a_cuda_build_alone(
    checkout: Checkout, machine: Machine, torch: str, needs_cuda: bool
) -> None:
    (checkout.venv / "lib/python3.11/site-packages" / f"{torch}.dist-info").mkdir(parents=True)

    ensure(checkout, dev=False)

    assert ("cuda" in machine.installed()) is needs_cuda


def test_other_platforms_get_the_core_and_are_told_of_the_simulator(
    checkout: Checkout, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "platform", lambda: "Darwin arm64")

    ensure(checkout, dev=False)

    assert machine.installed() == ["uv", "core", "backtest", "editable"]
    assert "vLLM has no CPU build for Darwin arm64: the simulator will answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("library", "said"),
    [(None, "another C library, such as Alpine's musl"), ("glibc 2.28", "this machine has glibc 2.28")],
)
def test_a_c_library_without_packages_is_named_before_anything_is_installed(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, library: str | None, said: str
) -> None:
    def confstr(name: str) -> str:
        if library is None:
            raise ValueError("unrecognized configuration name")
        return library

    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(sysname="Linux", machine="x86_64"))
    monkeypatch.setattr("os.confstr", confstr)
    with pytest.raises(InstallError, match=r"needs glibc 2\.31 or newer") as error:
        ensure(checkout, dev=False)
    assert said in str(error.value)
    assert not checkout.venv.exists()


@pytest.mark.parametrize("library", ["glibc 2.31", "glibc 2.41", "glibc 3.0"])
def test_a_c_library_that_is_new_enough_is_taken(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setattr("os.confstr", lambda name: library)
    install.check_platform()


def test_the_oldest_c_library_is_that_of_the_packages() -> None:
    """By the oldest tag of each wheel that is installed, development tools aside."""
    lock = (PROJECT_ROOT / "requirements" / "core.txt").read_text(encoding="utf-8")
    names = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    wheels = [each.read_text("WHEEL") or "" for each in metadata.distributions() if each.name.lower() in names]
    found = [re.findall(r"manylinux_(\d+)_(\d+)_", wheel) for wheel in wheels]
    tags = [[(int(major), int(minor)) for major, minor in each] for each in found]
    assert max((min(each) for each in tags if each), default=(2, 0)) <= install.LEAST_GLIBC


def test_an_installation_waits_for_the_one_at_work(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, entered = threading.Event(), threading.Event()
    monkeypatch.setattr(install, "say", lambda _: waiting.set())

    def second() -> None:
        with only_one(checkout):
            entered.set()

    thread = threading.Thread(target=second)
    with only_one(checkout):
        thread.start()
        assert waiting.wait(timeout=10)
        assert not entered.is_set()
    thread.join(timeout=10)

    assert entered.is_set()


def test_uv_is_told_to_be_quiet(checkout: Checkout, machine: Machine) -> None:
    ensure(checkout, dev=True)
    by_uv = [line for line in machine.ran if "/bin/uv " in line]
    assert by_uv
    assert all(" --quiet " in line for line in by_uv)


@pytest.fixture
def signals() -> Iterator[None]:
    """Lets the test take signals over, and gives them back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_a_long_installation_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def take_long(_: Checkout, dev: bool, progress: InstallProgress) -> None:
        deadline = time.monotonic() + 10
        progress.step = "packages"
        while "Still installing after 0 s: packages." not in (said := capsys.readouterr().err):
            assert time.monotonic() < deadline, (said, dev)

    monkeypatch.setattr(install, "TELL_EVERY_S", 0.01)
    monkeypatch.setattr(install, "ensure", take_long)

    main([])

    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_installation_tells_its_size_its_time_and_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, free = SimpleNamespace(now_s=1000.0), [100e9]
    monkeypatch.setattr(install, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    progress = InstallProgress(tmp_path)
    progress.announce("CUDA build of torch")
    assert capsys.readouterr().err == (
        "Installing (CUDA build of torch), once: about 2.9 GB to download, which takes 4 minutes at 100 Mbit/s, and "
        "5.8 GB on disk.\n"
    )
    clock.now_s, free[0] = 1015.0, 100e9 - 0.1e9
    progress.tell()
    assert capsys.readouterr().err == "Still installing after 15 s: packages.\n", "too little to tell the rest by"
    clock.now_s, free[0] = 1060.0, 100e9 - 1.45e9
    progress.tell()
    assert capsys.readouterr().err == (
        "Still installing after 60 s: packages, 1.4 of about 5.8 GB, about 180 s left.\n"
    )


def test_what_pip_is_told_is_told_to_uv_when_it_says_the_same() -> None:
    listed = "\n".join(
        [
            ":env:.find-links='/wheels ~/more'",
            ":env:.require-virtualenv='1'",
            "global.constraint='/etc/pip/constraints.txt'",
            "global.extra-index-url='\\nhttps://one/simple\\nhttps://two/simple'",
            "global.find-links='/elsewhere'",
            "global.index-url='https://global/simple'",
            "install.index-url='https://mirror/simple'",
        ]
    )

    assert uv_settings(listed) == {
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_FIND_LINKS": f"/wheels,{Path.home()}/more",
        "UV_INDEX": "https://one/simple https://two/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
