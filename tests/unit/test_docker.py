"""The containers run the Procfile's lines, all of them and nothing else, and no two workers share a GPU.

What the files say is compared, and `docker/run` is run. Docker itself is not needed, so it is not shown that the images
build, nor that a GPU reaches its container.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.config import PROJECT_ROOT
from headrace.stack.child import read_procfile

#: Services of the compose file that run no process of Headrace, and other ways to run `gpu`.
SERVERS = {"postgres", "redis", "prometheus", "grafana"}
ALSO_GPU = ("cpu", "gpu-1")


def run(checkout: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run a copy that lies in a checkout with a Procfile of its own, from another folder."""
    (checkout / "docker").mkdir()
    script = shutil.copy(PROJECT_ROOT / "docker" / "run", checkout / "docker")
    return subprocess.run([script, name], cwd="/", capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("extra", "locks"), [("", ["core"]), ("aws", ["core", "aws"])])
def test_the_image_has_an_actuators_sdk_only_where_it_is_asked_for(
    tmp_path: Path, extra: str, locks: list[str]
) -> None:
    text = (PROJECT_ROOT / "docker" / "api.Dockerfile").read_text()
    line = re.search("^RUN (pip install .*core.*)$", text, re.MULTILINE)[1]  # type: ignore[index]
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$*"\n')
    pip.chmod(0o755)

    done = subprocess.run(
        ["/bin/sh", "-c", line], env={"PATH": str(tmp_path), "EXTRA": extra}, capture_output=True, text=True, check=True
    )

    assert re.findall(r"-r requirements/(\S+)\.txt", done.stdout) == locks
    assert "ARG EXTRA=\n" in text


@pytest.mark.parametrize("image", ["api", "gpu"])
def test_an_image_brings_the_compiled_files_that_its_user_may_not_write(tmp_path: Path, image: str) -> None:
    text = (PROJECT_ROOT / "docker" / f"{image}.Dockerfile").read_text().replace("\\\n", "")
    line = re.search("&& (python -m compileall .*?) &&", text)[1]  # type: ignore[index]
    packages = ("headrace", "api", "ops", "workers", "scheduler", "plugins", "migrations")
    for package in packages:
        (tmp_path / "app" / package).mkdir(parents=True)
        (tmp_path / "app" / package / f"of_{package}.py").touch()
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled"),
    }

    subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path / "app", env=env, check=True)

    names = {path.name.partition(".")[0] for path in (tmp_path / "compiled").rglob("*.pyc")}
    assert names >= {*(f"of_{package}" for package in packages), "selectors"}


def services() -> dict[str, Any]:
    return dict(yaml.safe_load((PROJECT_ROOT / "docker" / "compose.yaml").read_text())["services"])


def test_compose_runs_every_process_of_the_procfile() -> None:
    commands = {name: service["command"] for name, service in services().items() if name not in SERVERS}

    assert [commands.pop(name) for name in ALSO_GPU] == [["gpu"]] * len(ALSO_GPU)
    assert commands == {name: [name] for name in read_procfile(PROJECT_ROOT / "Procfile")}


METRICS = {"HEADRACE_METRICS_HOST": "0.0.0.0", "HEADRACE_METRICS_PORT": 9464}
#: The secrets of each process; the password of Postgres is in the URL that all have.
SECRETS = {
    "web": {"HEADRACE_PEPPER", "HEADRACE_OLD_PEPPER", "HF_TOKEN"},
    "ops": {"HEADRACE_PEPPER", "HEADRACE_OLD_PEPPER"},
    "gpu": {"HF_TOKEN"},
    "gpu-1": {"HF_TOKEN"},
    "cpu": {"HF_TOKEN"},
    "overflow": {"OPENAI_API_KEY"},
    "webhooks": {"HEADRACE_BUDGETS__WEBHOOK_SECRET"},
    "plugins": {"HF_TOKEN"},
    "flower": {"FLOWER_BASIC_AUTH"},
}
#: Those that write, read and delete the contents of files.
OF_FILES = {"web", "plugins", "control"}
NO_SECRETS = {"DATABASE_URL", "REDIS_URL", "OPENAI_BASE_URL", "HEADRACE_MODEL", *METRICS}


def test_each_container_gets_the_secrets_that_it_uses_and_no_others() -> None:
    for name, service in services().items():
        if name in SERVERS:
            continue
        given = {variable for variable, value in service["environment"].items() if not str(value).endswith(":+set}")}
        files = {"HEADRACE_BATCHES__FILES__STORE"} if name in OF_FILES else set()
        assert given == SECRETS.get(name, set()) | NO_SECRETS | files, name
        has_files = any(volume.startswith("files:") for volume in service["volumes"])
        assert has_files == (name in OF_FILES), name


def test_prometheus_asks_each_process_at_its_port_and_no_other_machine_can() -> None:
    [job] = yaml.safe_load((PROJECT_ROOT / "docker/prometheus/prometheus.yaml").read_text())["scrape_configs"]
    [discovery] = job["dns_sd_configs"]
    ports = {name: service.get("ports", []) for name, service in services().items()}

    assert job["job_name"] == "headrace"
    assert discovery["port"] == METRICS["HEADRACE_METRICS_PORT"]
    assert set(discovery["names"]) == services().keys() - SERVERS - {"release", "beat", "flower"}
    for name, service in services().items():
        if name not in SERVERS:
            assert service["environment"].items() >= METRICS.items(), name
    published = {port for each in ports.values() for port in each}
    assert not any(port.endswith(f":{METRICS['HEADRACE_METRICS_PORT']}") for port in published)
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_each_gpu_worker_is_pinned_to_a_gpu_of_its_own() -> None:
    workers = {name: each for name, each in services().items() if each.get("image") == "headrace-gpu"}
    given = {name: each["deploy"]["resources"]["reservations"]["devices"] for name, each in workers.items()}

    assert {name: [device["device_ids"] for device in devices] for name, devices in given.items()} == {
        "gpu": [["0"]],
        "gpu-1": [["1"]],
    }


@pytest.mark.parametrize(
    ("visible", "host_id", "pool", "name"),
    [
        (None, None, None, "gpu@%h"),
        ("", "", "", "gpu@%h"),
        ("1", None, None, "gpu-1@%h"),
        (None, "i-0abc", None, "gpu@i-0abc"),
        ("0,1", "i-0abc", None, "gpu-0,1@i-0abc"),
        ("1", None, "fast", "gpu-fast-1@%h"),
    ],
)
def test_workers_of_one_host_have_names_of_their_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    host_id: str | None,
    pool: str | None,
    name: str,
) -> None:
    given = {"CUDA_VISIBLE_DEVICES": visible, "HEADRACE_HOST_ID": host_id, "HEADRACE_POOL": pool}
    for variable, value in given.items():
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    line = read_procfile(PROJECT_ROOT / "Procfile")["gpu"]
    (tmp_path / "Procfile").write_text(f"gpu: echo {line}\n")

    assert f"--hostname {name} " in run(tmp_path, "gpu").stdout


def test_container_becomes_the_line_with_its_variables(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("# a comment\nother: false\nhello: echo ${WHO:-world} $$\n")

    done = run(tmp_path, "hello")

    assert (done.returncode, done.stdout.split()[0]) == (0, "world")


def test_unknown_process_is_named_beside_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: true\ngpu: true\n")

    done = run(tmp_path, "wbe")

    assert done.returncode == 2
    assert all(name in done.stderr for name in ("wbe", "web", "gpu"))
