"""What one machine decides to run, and with which environment. Nothing is started here."""

import json
import socket
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from pydantic import SecretStr

from headrace.config import PoolSettings, Settings
from headrace.errors import StackError
from headrace.stack.hosts import ScaleOptions
from headrace.stack.machine import Machine, StackOptions
from headrace.stack.model import PreparedModel
from headrace.stack.services import Service


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a machine that has nothing yet, whatever the tests' own environment says."""
    for name in ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "HEADRACE_PEPPER", "FLOWER_BASIC_AUTH"):
        monkeypatch.delenv(name, raising=False)
    return Settings.load(state_dir=tmp_path / "state", engine="simulator")


def names(machine: Machine) -> list[list[str]]:
    return [[service.name for service in stage] for stage in machine.stages()]


def find(machine: Machine, name: str) -> Service:
    return next(service for stage in machine.stages() for service in stage if service.name == name)


def test_servers_come_first_and_one_at_a_time_then_the_release_then_the_rest(settings: Settings) -> None:
    processes = ["web", "ops", "gpu", "webhooks", "plugins", "control", "beat", "flower"]
    assert names(Machine(settings, StackOptions())) == [["postgres"], ["valkey"], ["release"], processes]


def test_stacks_that_start_at_the_same_time_share_no_port(settings: Settings, tmp_path: Path) -> None:
    machines = [
        Machine(settings.model_copy(update={"state_dir": tmp_path / name}), StackOptions())
        for name in ("one", "two", "three")
    ]
    for name in ("DATABASE_URL", "REDIS_URL", "PORT", "OPS_PORT", "FLOWER_PORT"):
        values = [find(machine, "web").command.env[name].rpartition(":")[2] for machine in machines]
        assert len(set(values)) == len(machines), name
    metrics = [port for machine in machines for port in machine.metrics_urls.values()]
    assert len(set(metrics)) == len(metrics) == 6 * len(machines)


def test_each_worker_that_runs_serves_its_metrics_on_a_port_of_its_own(settings: Settings) -> None:
    machine = Machine(settings.model_copy(update={"openai_api_key": SecretStr("sk-test")}), StackOptions())
    assert machine.metrics_urls.keys() == {"gpu", "overflow", "webhooks", "plugins", "control", "web", "ops"}
    for name, url in machine.metrics_urls.items():
        env = find(machine, name).command.env
        assert url == f"http://127.0.0.1:{env['HEADRACE_METRICS_PORT']}/metrics"
    assert len(set(machine.metrics_urls.values())) == 7
    alone = Machine(settings, StackOptions())
    assert alone.metrics_urls.keys() == {"gpu", "webhooks", "plugins", "control", "web", "ops"}


def test_a_server_that_is_given_by_url_is_not_started(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody@db.example/jobs")
    monkeypatch.setenv("REDIS_URL", "redis://cache.example:6379/3")
    machine = Machine(Settings.load(state_dir=settings.state_dir, engine="simulator"), StackOptions())
    assert names(machine)[0] == ["release"]
    env = find(machine, "web").command.env
    assert env["DATABASE_URL"] == "postgresql://somebody@db.example/jobs"
    assert env["REDIS_URL"] == "redis://cache.example:6379/3"


def cpus_of(machine: Machine) -> dict[str, tuple[int, ...]]:
    return {service.name: service.command.cpus for stage in machine.stages() for service in stage}


def test_processes_that_requests_and_jobs_pass_through_keep_to_a_cpu_each_and_the_others_to_none(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 5, 6, 7})
    first, second = Machine(settings, StackOptions()), Machine(settings, StackOptions())
    cpus = cpus_of(first)
    assert {name for name, kept in cpus.items() if kept} == {"web", "gpu"}
    assert len({*cpus["web"], *cpus["gpu"]}) == 2
    # Stacks beside each other begin with different CPUs.
    assert cpus_of(second)["web"] != cpus["web"]


@pytest.mark.parametrize(
    ("installed", "env", "options", "of_engine"),
    [
        (True, {}, {}, True),
        (False, {}, {}, False),
        (True, {"OMP_NUM_THREADS": "3"}, {}, False),
        (True, {"VLLM_CPU_OMP_THREADS_BIND": "0"}, {}, False),
        (True, {}, {"tensor_parallel_size": 2}, False),
    ],
)
def test_an_engine_on_the_cpu_has_cpus_of_its_own_unless_the_operator_chose(
    installed: bool,
    env: dict[str, str],
    options: dict[str, int],
    of_engine: bool,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("headrace.stack.machine.version", partial(_version, installed))
    for name in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    pool = PoolSettings(engine="vllm", engine_options=options)
    machine = Machine(settings.model_copy(update={"pools": {"chat": pool}}), StackOptions())
    gpu, web = find(machine, "gpu").command, find(machine, "web").command
    if of_engine:
        assert {*gpu.cpus, int(gpu.env["VLLM_CPU_OMP_THREADS_BIND"])} == {0, 1}
        assert web.cpus == gpu.cpus
    else:
        # The engine runs where its worker does.
        assert gpu.cpus == ()
        assert gpu.env.get("VLLM_CPU_OMP_THREADS_BIND") == env.get("VLLM_CPU_OMP_THREADS_BIND")
        assert len(web.cpus) == 1


def _version(installed: bool, name: str) -> str:
    if not installed:
        raise PackageNotFoundError(name)
    return "1"


def test_overflow_runs_only_with_an_api_key(settings: Settings) -> None:
    assert Machine(settings, StackOptions()).left_out == {"overflow": "OPENAI_API_KEY is not set"}
    with_key = settings.model_copy(update={"openai_api_key": SecretStr("sk-test")})
    machine = Machine(with_key, StackOptions())
    assert machine.left_out == {}
    assert "overflow" in names(machine)[-1]


def test_nothing_runs_on_a_gpu_where_the_paid_api_alone_answers(settings: Settings) -> None:
    pools = {"chat": settings.pools["chat"].model_copy(update={"engine": "openai"})}
    machine = Machine(
        settings.model_copy(update={"openai_api_key": SecretStr("sk-test"), "pools": pools}), StackOptions()
    )
    assert machine.left_out == {"gpu": "the paid API alone answers pool 'chat'"}
    assert machine.metrics_urls.keys() == {"overflow", "webhooks", "plugins", "control", "web", "ops"}
    assert find(machine, "overflow").command.env["HEADRACE_ENGINE"] == "openai"


FAST = {"fast": PoolSettings(model="small", engine="simulator", latency_goal_s=2)}


def with_fast(settings: Settings) -> Settings:
    """The same with a second pool of its own, and one of the paid API's."""
    paid = {"paid": PoolSettings(model="gpt-4o-mini", engine="openai")}
    return settings.model_copy(update={"pools": {**settings.pools, **FAST, **paid}})


def test_each_pool_of_its_own_has_a_worker_that_knows_its_pool(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(with_fast(settings), StackOptions())

    assert names(machine)[-1] == ["web", "ops", "gpu", "gpu-fast", "webhooks", "plugins", "control", "beat", "flower"]
    first, fast = find(machine, "gpu").command, find(machine, "gpu-fast").command
    assert first.argv == fast.argv
    assert (first.env.get("HEADRACE_POOL", ""), fast.env["HEADRACE_POOL"]) == ("", "fast")
    assert machine.metrics_urls["gpu-fast"] == f"http://127.0.0.1:{fast.env['HEADRACE_METRICS_PORT']}/metrics"
    assert len(set(machine.metrics_urls.values())) == len(machine.metrics_urls) == 7
    # Every process knows every pool as it is served here, whichever pool is its own.
    monkeypatch.setenv("HEADRACE_POOLS__FAST__ENGINE", "vllm")
    for name in ("web", "gpu", "gpu-fast", "control"):
        env = find(Machine(with_fast(settings), StackOptions()), name).command.env
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("HEADRACE_POOLS__FAST__ENGINE")
            for variable, value in env.items():
                patch.setenv(variable, value)
            loaded = Settings.load()
        assert loaded.pool == ("fast" if name == "gpu-fast" else "chat")
        assert loaded.pools == with_fast(settings).pools


def test_each_worker_loads_the_model_of_its_pool(settings: Settings, tmp_path: Path) -> None:
    models = {name: PreparedModel(name, tmp_path / name, "a folder") for name in ("chat", "fast")}
    env = find(Machine(with_fast(settings), StackOptions(models=models)), "gpu-fast").command.env

    folders = {name: pool.get("model_dir") for name, pool in json.loads(env["HEADRACE_POOLS"]).items()}
    assert folders == {"chat": str(tmp_path / "chat"), "fast": str(tmp_path / "fast"), "paid": None}
    assert env["HEADRACE_MODEL_DIR"] == env["HEADRACE_ENGINE"] == ""


def test_workers_of_other_pools_are_left_out_alone_or_with_all_others(settings: Settings) -> None:
    two = with_fast(settings)
    assert "gpu-fast" not in names(Machine(two, StackOptions(frozenset({"gpu-fast"}))))[-1]
    assert "gpu" in names(Machine(two, StackOptions(frozenset({"gpu-fast"}))))[-1]
    without = Machine(two, StackOptions(frozenset({"gpu"})))
    assert (without.left_out["gpu"], without.left_out["gpu-fast"]) == ("as asked", "as gpu is")
    scaled = Machine(two, StackOptions(scale=ScaleOptions()))
    assert scaled.left_out["gpu-fast"] == "--scale runs hosts of the served pool alone"
    assert "gpu-fast" not in names(scaled)[-1]


def test_hosts_take_the_place_of_the_one_gpu_process(settings: Settings) -> None:
    machine = Machine(settings, StackOptions(scale=ScaleOptions(3, 10.0)))
    assert names(machine)[-1] == ["web", "ops", "webhooks", "plugins", "control", "beat", "flower"]
    assert machine.left_out == {"overflow": "OPENAI_API_KEY is not set"}
    assert machine.hosts is not None
    [host] = machine.hosts.roster.first
    env = host.command.env
    assert host.name == f"gpu@{env['HEADRACE_HOST_ID']}"
    assert host.command.argv == find(Machine(settings, StackOptions()), "gpu").command.argv
    assert machine.metrics_urls[host.name] == f"http://127.0.0.1:{env['HEADRACE_METRICS_PORT']}/metrics"
    assert machine.metrics_urls.keys() == {host.name, "webhooks", "plugins", "control", "web", "ops"}


def test_only_hosts_in_a_postgres_of_its_own_are_known_to_be_gone(settings: Settings) -> None:
    def ends_leases(given: Settings, scale: ScaleOptions | None) -> bool:
        usual = find(Machine(settings, StackOptions()), "web").before_start
        return find(Machine(given, StackOptions(scale=scale)), "control").before_start is not usual

    others = Settings.load(state_dir=settings.state_dir, engine="simulator", database_url="postgresql+psycopg://db/x")
    assert ends_leases(settings, ScaleOptions())
    assert not ends_leases(settings, None)
    assert not ends_leases(others, ScaleOptions())


def test_the_autoscaler_finds_the_socket_and_the_limit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(settings, StackOptions(scale=ScaleOptions(3, 10.0)))
    for name, value in find(machine, "control").command.env.items():
        monkeypatch.setenv(name, value)
    scaling = Settings.load().scaling
    assert (scaling.mode, scaling.actuator) == ("active", "local")
    assert scaling.local.socket == str(machine.host_socket)
    assert scaling.of_pool("chat").max_hosts == 3


@pytest.mark.parametrize("without", ["gpu", None])
def test_without_a_gpu_process_there_are_no_hosts_to_scale(settings: Settings, without: str | None) -> None:
    if without is None:
        pools = {"chat": settings.pools["chat"].model_copy(update={"engine": "openai"})}
        settings = settings.model_copy(update={"pools": pools})
    left_out = frozenset({without} if without else ())
    with pytest.raises(StackError, match="no hosts to scale, because gpu is left out"):
        Machine(settings, StackOptions(left_out, scale=ScaleOptions()))


def test_a_process_is_left_out_as_asked(settings: Settings) -> None:
    machine = Machine(settings, StackOptions(frozenset({"gpu", "flower"})))
    assert names(machine)[-1] == ["web", "ops", "webhooks", "plugins", "control", "beat"]
    assert machine.left_out["gpu"] == "as asked"


def test_leaving_out_a_process_that_does_not_exist_is_refused_with_the_names_there_are(settings: Settings) -> None:
    with pytest.raises(StackError, match="no gpus; it has release, web, ops, gpu"):
        Machine(settings, StackOptions(frozenset({"gpus"})))


def test_processes_find_our_programs_first_and_get_what_they_need(settings: Settings, tmp_path: Path) -> None:
    model = PreparedModel("model", tmp_path / "model", "a folder")
    machine = Machine(settings, StackOptions(models={"chat": model}))
    env = find(machine, "web").command.env
    assert env["PATH"].startswith(f"{Path(sys.executable).parent}:")
    assert env["HEADRACE_ENGINE"] == "simulator"
    assert env["HEADRACE_MODEL_DIR"] == str(tmp_path / "model")
    assert env["HEADRACE_STATE"] == str(settings.state_dir)
    assert machine.url.endswith(env["PORT"])
    assert machine.ops_url.endswith(env["OPS_PORT"])
    assert machine.flower_url.endswith(env["FLOWER_PORT"])


def test_secrets_survive_a_restart(settings: Settings) -> None:
    first, second = (find(Machine(settings, StackOptions()), "web").command.env for _ in range(2))
    assert len(first["HEADRACE_PEPPER"]) >= 32
    for name in ("HEADRACE_PEPPER", "FLOWER_BASIC_AUTH"):
        assert first[name] == second[name]


def test_a_default_port_that_is_taken_is_passed_over_and_one_that_was_asked_for_is_refused(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"Port {port} is taken"):
            Machine(settings, StackOptions(port=port))
    first = Machine(settings, StackOptions())
    with pytest.raises(StackError, match=f"Port {first.web_port} is taken"):
        Machine(settings, StackOptions(port=first.web_port))
    assert Machine(settings, StackOptions()).web_port != first.web_port


def test_no_secret_is_shown_in_the_list_of_processes(settings: Settings) -> None:
    machine = Machine(settings, StackOptions())
    secrets = [machine.settings.pepper.get_secret_value(), machine.flower_auth.partition(":")[2]]
    for stage in machine.stages():
        for service in stage:
            assert not [secret for secret in secrets if secret in " ".join(service.command.argv)]
