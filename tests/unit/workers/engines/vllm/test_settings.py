import json
from os import environ  # noqa: TID251 (what is tested is what it holds)
from pathlib import Path

import pytest

from headrace.config import PoolSettings
from headrace.errors import ConfigError
from workers.engines.vllm import settings as vllm_settings
from workers.engines.vllm.settings import Adapter, arguments, environment, find_adapters, lora_arguments


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def on_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(vllm_settings, "is_cpu_build", lambda: request.param)
    return bool(request.param)


def test_kv_cache_mib_is_honoured_on_a_gpu_as_on_a_cpu(on_cpu: bool) -> None:
    assert arguments(PoolSettings(kv_cache_mib=64))["kv_cache_memory_bytes"] == 64 * 1024 * 1024


def test_without_a_size_a_gpu_s_kv_cache_is_left_to_the_engine(on_cpu: bool) -> None:
    chosen = arguments(PoolSettings())
    assert chosen.get("kv_cache_memory_bytes") == (512 * 1024 * 1024 if on_cpu else None)
    assert chosen.get("enforce_eager", False) is on_cpu
    assert chosen["scheduling_policy"] == "priority"


def test_the_operator_s_engine_options_win(on_cpu: bool) -> None:
    chosen = arguments(PoolSettings(engine_options={"scheduling_policy": "fcfs", "enforce_eager": False}))
    assert chosen["scheduling_policy"] == "fcfs"
    assert chosen["enforce_eager"] is False


def test_structured_output_of_the_demos_model_has_no_white_space(on_cpu: bool) -> None:
    name = "structured_outputs_config"
    assert arguments(PoolSettings())[name] == {"backend": "xgrammar", "disable_any_whitespace": True}
    assert name not in arguments(PoolSettings(model="org/name"))
    assert arguments(PoolSettings(engine_options={name: {"backend": "auto"}}))[name] == {"backend": "auto"}


def test_an_embedding_model_runs_in_the_pooling_runner(on_cpu: bool) -> None:
    chosen = arguments(PoolSettings(serves="embeddings"))
    assert (chosen["runner"], chosen.get("dtype")) == ("pooling", "float32" if on_cpu else None)
    assert {"runner", "dtype"}.isdisjoint(arguments(PoolSettings()))


def test_the_folder_is_loaded_under_the_name_that_requests_use(on_cpu: bool, tmp_path: Path) -> None:
    chosen = arguments(PoolSettings(model="org/name", model_dir=tmp_path))
    assert (chosen["model"], chosen["served_model_name"]) == (str(tmp_path), "org/name")


def test_the_environment_is_set_for_the_load_only(
    on_cpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/before")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for name in ("DO_NOT_TRACK", "TORCHINDUCTOR_CACHE_DIR", "TORCH_COMPILE_DISABLE", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.delenv(name, raising=False)
    before = dict(environ)
    with environment(PoolSettings(model_dir=tmp_path), tmp_path):
        assert environ["TMPDIR"] == environ["VLLM_RPC_BASE_PATH"] == str(tmp_path)
        assert environ["DO_NOT_TRACK"] == environ["HF_HUB_OFFLINE"] == "1"
        assert environ["OMP_NUM_THREADS"] == "7"
        assert ("VLLM_CPU_OMP_THREADS_BIND" in environ) is on_cpu
        assert ("TORCHINDUCTOR_CACHE_DIR" in environ) is on_cpu
        assert ("TORCH_COMPILE_DISABLE" in environ) is on_cpu
    assert dict(environ) == before


def test_an_operator_who_wants_the_model_compiled_gets_it_compiled(
    on_cpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_COMPILE_DISABLE", raising=False)
    with environment(PoolSettings(engine_options={"enforce_eager": False}), tmp_path):
        assert "TORCH_COMPILE_DISABLE" not in environ


def test_the_parser_of_what_is_thought_is_vllm_s_too(on_cpu: bool) -> None:
    # It constrains the shape of the answer alone.
    assert arguments(PoolSettings(reasoning_parser="qwen3"))["reasoning_parser"] == "qwen3"
    assert "reasoning_parser" not in arguments(PoolSettings())


def test_a_hub_model_may_go_to_the_hub(on_cpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with environment(PoolSettings(model="org/name"), tmp_path):
        assert "HF_HUB_OFFLINE" not in environ


@pytest.mark.parametrize(("cpus", "threads"), [(1, "1"), (2, "1"), (4, "2"), (64, "8")])
def test_half_of_the_cpus_are_left_free(
    cpus: int, threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_settings, "is_cpu_build", lambda: True)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    with environment(PoolSettings(), tmp_path):
        assert environ["OMP_NUM_THREADS"] == threads


def test_an_engine_has_a_thread_on_each_cpu_that_is_named_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_settings, "is_cpu_build", lambda: True)
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "1,4-6")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with environment(PoolSettings(), tmp_path):
        assert environ["OMP_NUM_THREADS"] == "4"
        assert environ["VLLM_CPU_OMP_THREADS_BIND"] == "1,4-6"


def test_the_operator_s_number_of_threads_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_settings, "is_cpu_build", lambda: True)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with environment(PoolSettings(), tmp_path):
        assert environ["OMP_NUM_THREADS"] == "3"


def test_an_adapter_brings_what_it_needs_and_the_operator_s_options_win(on_cpu: bool, tmp_path: Path) -> None:
    adapters = [Adapter(f"no-{i}", i, tmp_path, rank) for i, rank in enumerate([4, 20, 32], start=1)]
    chosen = arguments(PoolSettings(engine_options={"max_cpu_loras": 9}), adapters)
    assert (chosen["enable_lora"], chosen["max_lora_rank"], chosen["max_cpu_loras"]) == (True, 32, 9)
    assert chosen["max_loras"] == (4 if on_cpu else 3)


def test_without_adapters_nothing_is_said_of_them(on_cpu: bool) -> None:
    assert not [name for name in arguments(PoolSettings()) if "lora" in name]


@pytest.mark.parametrize(("longest", "batched"), [(512, 2048), (8192, 8192)])
def test_a_prompt_is_computed_whole_on_a_cpu(longest: int, batched: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_settings, "is_cpu_build", lambda: True)
    chosen = arguments(PoolSettings(kv_cache_mib=64, max_model_tokens=longest))
    assert (chosen["enable_chunked_prefill"], chosen["max_num_batched_tokens"]) == (False, batched)


def test_without_a_limit_of_its_own_a_pool_leaves_that_to_vllm(on_cpu: bool) -> None:
    assert "enable_chunked_prefill" not in arguments(PoolSettings(kv_cache_mib=64, max_model_tokens=None))


WHERE = "pools.chat.adapters"


def adapter(folder: Path, rank: object = 8) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return str(folder)


def test_adapters_are_numbered_as_they_are_set(tmp_path: Path) -> None:
    found = find_adapters({"sql": adapter(tmp_path / "a", 8), "mail": adapter(tmp_path / "b", 64)}, WHERE)
    assert [(each.name, each.number, each.rank) for each in found.values()] == [("sql", 1, 8), ("mail", 2, 64)]
    assert lora_arguments(found.values(), on_cpu=False) == {
        "enable_lora": True,
        "max_loras": 2,
        "max_cpu_loras": 2,
        "max_lora_rank": 64,
    }


def test_a_batch_on_a_gpu_has_a_bounded_number_of_them(tmp_path: Path) -> None:
    found = find_adapters({f"no-{i}": adapter(tmp_path / str(i)) for i in range(9)}, WHERE)
    chosen = lora_arguments(found.values(), on_cpu=False)
    assert (chosen["max_loras"], chosen["max_cpu_loras"]) == (8, 9)


@pytest.mark.parametrize("rank", [0, 513, "many", None])
def test_a_rank_that_vllm_does_not_take_is_named(tmp_path: Path, rank: object) -> None:
    with pytest.raises(ConfigError) as raised:
        find_adapters({"sql": adapter(tmp_path / "a", rank)}, WHERE)
    assert raised.value.param == "pools.chat.adapters.sql"


def test_a_folder_without_an_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pools\.chat\.adapters\.sql.*adapter_config\.json"):
        find_adapters({"sql": str(tmp_path)}, WHERE)


def test_what_is_neither_a_folder_nor_a_hub_id_is_named() -> None:
    with pytest.raises(ConfigError, match=r"pools\.chat\.adapters\.sql.*/no/such/folder"):
        find_adapters({"sql": "/no/such/folder"}, WHERE)
