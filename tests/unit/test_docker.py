"""The containers run the Procfile's lines, all of them and nothing else."""

import shutil
import subprocess
from pathlib import Path

import yaml

from headrace.config import PROJECT_ROOT
from headrace.stack import procfile

#: Services of the compose file that are not processes of ours, and the one that is a second way to run `gpu`.
SERVERS = {"postgres", "redis"}
ON_CPU = "cpu"


def run(checkout: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run a copy that lies in a checkout with a Procfile of its own, from another folder."""
    (checkout / "docker").mkdir()
    script = shutil.copy(PROJECT_ROOT / "docker" / "run", checkout / "docker")
    return subprocess.run([script, name], cwd="/", capture_output=True, text=True, check=False)


def test_compose_runs_every_process_of_the_procfile() -> None:
    services = yaml.safe_load((PROJECT_ROOT / "docker" / "compose.yaml").read_text())["services"]
    commands = {name: service["command"] for name, service in services.items() if name not in SERVERS}

    assert commands.pop(ON_CPU) == ["gpu"]
    assert commands == {name: [name] for name in procfile.read(PROJECT_ROOT / "Procfile")}


def test_container_becomes_the_line_with_its_variables(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("# a comment\nother: false\nhello: echo ${WHO:-world} $$\n")

    done = run(tmp_path, "hello")

    assert (done.returncode, done.stdout.split()[0]) == (0, "world")


def test_unknown_process_is_named_beside_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: true\ngpu: true\n")

    done = run(tmp_path, "wbe")

    assert done.returncode == 2
    assert all(name in done.stderr for name in ("wbe", "web", "gpu"))
