"""Make the environment that every command of this checkout shares: `.venv`, from the locks in `requirements/`.

A bare `python3` runs this before any package is installed. So it imports only the standard library, and nothing of the
project. It must not know what the commands do.

    install.py [--dev] [COMMAND ARGUMENT ...]

makes the environment unless it is complete, then becomes COMMAND in it. A stamp, written last, records the content of
the environment. After an interruption the stamp is missing, and the environment is made anew.
"""

import ast
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

#: (GB to download, GB on disk) for the locks when they were last compiled, rounded up.
SIZE_GB = {"no vLLM": (0.2, 0.4), "CPU build of torch": (0.6, 2.3), "CUDA build of torch": (2.9, 5.8)}

#: The oldest glibc for which all packages of the locks have wheels; llguidance asks for the newest.
LEAST_GLIBC = (2, 31)

#: The speed for which the time of a download is told.
MBIT_PER_S = 100
#: With a smaller share of the packages on the disk, the time left is not told.
LEAST_SHARE = 0.05

#: Seconds between two messages that the installation goes on: uv prints nothing while it works.
TELL_EVERY_S = 15.0

#: pip's settings, and uv's variable for each. uv does not read pip's settings.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


class InstallError(Exception):
    """The environment could not be made."""


class Checkout:
    """The paths of a checkout's locks and of its environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.locks = root / "requirements"
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        self.uv = self.venv / "bin" / "uv"
        self.sdk_floor = self.venv / "sdk-floor"
        self.stamp = self.venv / "headrace.json"

    def wanted(self, dev: bool) -> dict[str, str]:
        """Fingerprint each wanted layer of the environment: {layer: hash of its sources}."""
        here = [str(self.root), sys.implementation.cache_tag, platform()]
        base = [self.locks / f"{name}.txt" for name in ("uv", "core", "backtest", "torch-cpu", "cpu", "cuda")]
        layers = {"base": fingerprint(here, *base), "project": fingerprint([], self.root / "pyproject.toml")}
        if dev:
            layers["dev"] = fingerprint([], self.locks / "dev.txt", self.locks / "sdk-floor.txt")
        return layers

    def held(self) -> dict[str, str]:
        """Read the stamp: {layer: hash of its sources}. Empty if the environment is incomplete."""
        try:
            layers: dict[str, str] = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            return {}
        return layers if self.python.exists() else {}

    def has_cuda_torch(self) -> bool:
        """True if the installed torch is PyPI's, which links to NVIDIA's libraries."""
        found = [path.name for path in self.venv.glob("lib/python*/site-packages/torch-*.dist-info")]
        return any("+cpu" not in name for name in found)


def fingerprint(facts: list[str], *files: Path) -> str:
    digest = hashlib.sha256("\0".join(facts).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def platform() -> str:
    machine = os.uname()
    return f"{machine.sysname} {machine.machine}"


def has_vllm_for_cpu() -> bool:
    return platform() == "Linux x86_64"


def check_platform() -> None:
    """Raises: InstallError: the packages have no wheels for this machine's C library."""
    if os.uname().sysname != "Linux":
        return
    needed = ".".join(map(str, LEAST_GLIBC))
    try:
        found = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        found = ""
    if not (version := re.fullmatch(r"glibc (\d+)\.(\d+).*", found)):
        raise InstallError(
            f"Headrace needs glibc {needed} or newer, and this Linux has another C library, such as Alpine's musl: its "
            "packages have no builds for that. Use Debian, Ubuntu, Fedora or an image of theirs."
        )
    if (int(version[1]), int(version[2])) < LEAST_GLIBC:
        raise InstallError(
            f"Headrace needs glibc {needed} or newer, and this machine has {found}: use a newer release of it."
        )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class InstallProgress:
    """Tells at each alarm how far the installation is: uv prints nothing while it works."""

    def __init__(self, folder: Path) -> None:
        """Begin. Args: folder: where the environment will be."""
        self.folder, self.step = folder, "making the environment"
        self.began = self.announced = time.monotonic()
        self.disk_gb = 0.0
        self.free = shutil.disk_usage(folder).free

    def announce(self, kind: str) -> None:
        down, self.disk_gb = SIZE_GB[kind]
        self.step, self.announced, self.free = "packages", time.monotonic(), shutil.disk_usage(self.folder).free
        minutes = down * 8000 / MBIT_PER_S / 60
        took = f"{minutes:.0f} minutes" if minutes > 1.5 else f"{60 * minutes:.0f} s"
        say(
            f"Installing ({kind}), once: about {down} GB to download, which takes {took} at {MBIT_PER_S} Mbit/s, and "
            f"{self.disk_gb} GB on disk."
        )

    def tell(self, *_: object) -> None:
        now = time.monotonic()
        text = f"Still installing after {now - self.began:.0f} s: {self.step}"
        # By what the disk has less: uv unpacks beside the environment, and links the files at the end.
        grown_gb = (self.free - shutil.disk_usage(self.folder).free) / 1e9
        share = grown_gb / self.disk_gb if self.disk_gb else 0.0
        if LEAST_SHARE <= share < 1:
            left_s = (now - self.announced) * (1 - share) / share
            text += f", {grown_gb:.1f} of about {self.disk_gb} GB, about {left_s:.0f} s left"
        say(f"{text}.")


def uv_settings(listed: str) -> dict[str, str]:
    """Translate the output of `pip config list` into variables for uv.

    pip searches every index for the best match. uv must do so too, or a mirror with only some packages would hide the
    rest. This is safe, because the locks' hashes decide which files are accepted.
    """
    # The environment wins over pip's files, and the section of one command wins over `global`.
    rank = {"global": 0, "install": 1, ":env:": 2}
    found = re.findall(r"^(global|install|:env:)\.([\w-]+)=(.+)$", listed, re.MULTILINE)
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for _, name, value in sorted(found, key=lambda line: rank[line[0]]):
        if variable := UV_NAMES.get(name):
            words = str(ast.literal_eval(value)).split()
            separator = "," if name == "find-links" else " "
            settings[variable] = separator.join(os.path.expanduser(word) for word in words)
    return settings


class Installer:
    """Runs pip and uv for one checkout, one installation at a time.

    Attributes:
        lock: descriptor of the lock. The children inherit it, so the lock is free only when all of them have ended.
    """

    def __init__(self, checkout: Checkout, lock: int, progress: InstallProgress) -> None:
        self.checkout = checkout
        self.progress = progress
        self.lock = lock
        self.python_m_pip = (str(checkout.python), "-I", "-m", "pip")
        self.environment: Mapping[str, str] = os.environ  # noqa: TID251 - runs before headrace.config can be imported

    def install(self, wanted: Mapping[str, str]) -> None:
        """Install the wanted layers, one at a time."""
        started, checkout, held = time.monotonic(), self.checkout, self.checkout.held()
        packages = {layer: made_from for layer, made_from in wanted.items() if layer != "project"}
        if not packages.items() <= held.items():
            if checkout.venv.is_symlink():
                raise InstallError(f"{checkout.venv} is a link, and what it leads to would be cleared: remove it.")
            # No stamp may exist until the layers are complete.
            checkout.stamp.unlink(missing_ok=True)
            if held.get("base") != packages["base"]:
                held = {}
                self.make_venv()
                # May fail: on a platform without uv, pip does all the work, from the same locks.
                self.run(
                    self.pip("--quiet", "--only-binary=:all:", "--require-hashes", "-r", str(checkout.locks / "uv.txt"))
                )
            self.tell_uv_what_pip_knows()
            if not held:
                self.install_base()
            if "dev" in packages:
                say("Installing the development tools.")
                self.progress.step, self.progress.disk_gb = "development tools", 0.0
                self.add("dev")
                # Remove the folder first: pip would keep the packages that are already in it.
                shutil.rmtree(checkout.sdk_floor, ignore_errors=True)
                self.add("sdk-floor", into=checkout.sdk_floor)
            held |= packages
            checkout.stamp.write_text(json.dumps(held))
        if held.get("project") != wanted["project"]:
            # pip, because uv leaves a file in the temporary folder after a build.
            self.must(self.pip("--quiet", "--no-build-isolation", "--editable", str(checkout.root)))
        checkout.stamp.write_text(json.dumps({**held, **wanted}))
        say(f"Installed in {time.monotonic() - started:.0f} s; .venv holds {disk_gb(checkout.venv):.1f} GB.")

    def make_venv(self) -> None:
        try:
            import ensurepip  # noqa: F401 - some distributions leave it out
            import venv  # noqa: F401
        except ImportError as missing:
            raise InstallError(
                f"{sys.executable} lacks {missing.name}, which makes environments. "
                "On Debian or Ubuntu: apt install python3-venv"
            ) from missing
        say(f"Making .venv with Python {'.'.join(map(str, sys.version_info[:3]))}.")
        # A child process, which holds the lock: if this process is killed, no other one clears the folder meanwhile.
        self.must((sys.executable, "-I", "-m", "venv", "--clear", str(self.checkout.venv)))

    def tell_uv_what_pip_knows(self) -> None:
        listed = self.run((*self.python_m_pip, "config", "list"), quiet=True).stdout
        self.environment = {**uv_settings(listed), **self.environment}

    def install_base(self) -> None:
        if not has_vllm_for_cpu():
            self.progress.announce("no vLLM")
            say(f"vLLM has no CPU build for {platform()}: the simulator will answer here, and its answers will say so.")
            return self.add("core", "backtest")
        self.take_cpu_torch()
        self.add("core", "backtest", "cpu")
        if self.checkout.has_cuda_torch():
            say("PyPI's torch is a CUDA build: it needs NVIDIA's libraries even to start.")
            self.add("cuda")

    def take_cpu_torch(self) -> None:
        """Install a CPU build of torch if an index offers one. Otherwise pip prefers PyPI's, whose hash it sees."""
        self.progress.step = "looking for a CPU build of torch"
        tool = self.uv() if self.checkout.uv.exists() else self.pip()
        lock = ("--require-hashes", "-r", str(self.checkout.locks / "torch-cpu.txt"))
        offered = self.run((*tool, "--dry-run", *lock), quiet=True).returncode == 0
        self.progress.announce("CPU build of torch" if offered else "CUDA build of torch")
        if offered and self.run((*tool, *lock)).returncode != 0:
            say("This CPU build of torch is none that the lock knows. PyPI's CUDA build is taken instead.")

    def add(self, *names: str, into: Path | None = None) -> None:
        """Install the packages of complete locks, with uv or else with pip. `into`: a separate folder for them."""
        files = (word for name in names for word in ("-r", str(self.checkout.locks / f"{name}.txt")))
        arguments = ("--require-hashes", *(("--target", str(into)) if into else ()), *files)
        if self.checkout.uv.exists():
            if self.run((*self.uv(), *arguments)).returncode == 0:
                return
            say("uv could not install this; pip will try.")
        self.must((*self.pip(), *arguments))

    def uv(self) -> tuple[str, ...]:
        return (str(self.checkout.uv), "pip", "install", "--quiet", "--python", str(self.checkout.python), "--no-deps")

    def pip(self, *arguments: str) -> tuple[str, ...]:
        return (*self.python_m_pip, "install", "--disable-pip-version-check", "--no-deps", *arguments)

    def must(self, command: tuple[str, ...]) -> None:
        if self.run(command).returncode != 0:
            raise InstallError("The installation failed; the lines above say why. The next start tries again.")

    def run(self, command: tuple[str, ...], quiet: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.checkout.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else sys.stderr,
            stderr=subprocess.DEVNULL if quiet else sys.stderr,
            text=True,
            pass_fds=[self.lock],
            check=False,
        )


@contextmanager
def only_one(checkout: Checkout) -> Iterator[int]:
    """Hold the checkout's lock; wait for it first."""
    with (checkout.root / ".venv.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another installation is at work in this checkout; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def disk_gb(folder: Path) -> float:
    """The space that a folder takes, in GB. Counts files that it shares with a cache."""
    files = (os.lstat(os.path.join(path, name)) for path, _, names in os.walk(folder) for name in names)
    return sum(512 * file.st_blocks for file in files) / 1e9


def terminated(*_: object) -> NoReturn:
    # Raises SystemExit, so that the running child is ended as well.
    sys.exit(128 + signal.SIGTERM)


def ensure(checkout: Checkout, dev: bool, progress: InstallProgress | None = None) -> None:
    """Install the missing layers of the environment. Cheap if it is complete."""
    wanted = checkout.wanted(dev)
    if wanted.items() <= checkout.held().items():
        return
    check_platform()
    with only_one(checkout) as lock:
        if not wanted.items() <= checkout.held().items():
            Installer(checkout, lock, progress or InstallProgress(checkout.root)).install(wanted)


def main(arguments: list[str]) -> None:
    checkout = Checkout(Path(__file__).resolve().parents[2])
    dev = arguments[:1] == ["--dev"]
    signal.signal(signal.SIGTERM, terminated)
    progress = InstallProgress(checkout.root)
    signal.signal(signal.SIGALRM, progress.tell)
    signal.setitimer(signal.ITIMER_REAL, TELL_EVERY_S, TELL_EVERY_S)
    try:
        ensure(checkout, dev, progress)
    except InstallError as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("Interrupted. The next start begins anew.")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if command := arguments[dev:]:
        program = str(checkout.venv / "bin" / command[0])
        os.execv(program, [program, *command[1:]])


if __name__ == "__main__":
    main(sys.argv[1:])
