"""vLLM's own options as a pool gives them: which are refused before anything is loaded, and what those do that work."""

import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from headrace.config import PROJECT_ROOT, Settings
from headrace.errors import ConfigError
from tests.contracts.test_engine import SOON_S, free, into, tiny_pool
from tests.waiting import until
from workers.engines import load
from workers.engines.base import Engine, Progress
from workers.engines.vllm.options import checked

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not available on this platform"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own.
]

WHERE = "pools.small.engine_options"


def engine(folder: Path, **options: Any) -> Engine:
    pool = tiny_pool(folder).model_copy(update={"engine_options": options})
    return load("vllm", Settings(pools={"small": pool}, pool="small"), pool)


@pytest.mark.parametrize(
    ("options", "param", "told"),
    [
        ({"tensor_parallel": 2}, f"{WHERE}.tensor_parallel", "Did you mean 'tensor_parallel_size'?"),
        ({"dtype": "bf16"}, f"{WHERE}.dtype", "'bfloat16'"),
        ({"kv_cache_dtype": "fp3"}, f"{WHERE}.kv_cache_dtype", "'fp8'"),
        ({"gpu_memory_utilization": "most"}, f"{WHERE}.gpu_memory_utilization", "valid number"),
        ({"gpu_memory_utilization": 7}, f"{WHERE}.gpu_memory_utilization", "less than or equal to 1"),
        ({"speculative_config": {"method": "luck"}}, f"{WHERE}.speculative_config.method", "'ngram'"),
        ({"compilation_config": {"pace": 3}}, f"{WHERE}.compilation_config.pace", "Unexpected keyword"),
        # What vLLM says of a whole configuration names no option; the words do.
        ({"quantization": "fp0"}, "pools.small", "Unknown quantization method: fp0"),
    ],
)
def test_an_option_that_cannot_be_is_named_before_anything_is_loaded(
    tiny_llama: Path, options: dict[str, Any], param: str, told: str
) -> None:
    refused = engine(tiny_llama, **options)
    with pytest.raises(ConfigError) as raised:
        refused.start()
    refused.stop()
    assert raised.value.param == param
    assert param in str(raised.value)
    assert told in str(raised.value)


def test_the_options_that_the_settings_file_shows_are_vllm_s_own() -> None:
    from vllm import AsyncEngineArgs

    text = (PROJECT_ROOT / "headrace.toml").read_text(encoding="utf-8")
    block = text.partition("# [pools.chat.engine_options]\n")[2].partition("\n\n")[0]
    shown = tomllib.loads(re.sub("^# ", "", block, flags=re.MULTILINE))
    assert len(shown) > 5
    assert checked(shown, fields(AsyncEngineArgs), WHERE) == shown


def test_options_from_the_environment_reach_vllm(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        "ENABLE_PREFIX_CACHING": "false",
        "SEED": "7",
        "WATERMARK": "0.01",
        "SPECULATIVE_CONFIG__METHOD": "ngram",
        "SPECULATIVE_CONFIG__NUM_SPECULATIVE_TOKENS": "3",
    }
    for name, value in options.items():
        monkeypatch.setenv(f"HEADRACE_POOLS__CHAT__ENGINE_OPTIONS__{name}", value)
    pool = tiny_pool(tiny_llama).model_copy(update={"engine_options": Settings.load().served_pool.engine_options})
    started = load("vllm", Settings(), pool)
    try:
        limits = started.start()
        config: Any = started._core._llm.vllm_config  # type: ignore[attr-defined]
        assert config.cache_config.enable_prefix_caching is False
        assert config.model_config.seed == 7
        assert config.scheduler_config.watermark == 0.01
        assert (config.speculative_config.method, config.speculative_config.num_speculative_tokens) == ("ngram", 3)

        # Tokens that are guessed ahead come several in a step, and are counted as others are.
        pieces: list[str] = []
        heard = started.generate(free(), into(pieces))
        assert (heard.finish_reason, heard.usage.output_tokens) == ("length", 60)
        assert len(pieces) < 60, "none came together"
        assert "".join(pieces) == heard.text
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(started.generate, free(max_tokens=900, request_id="long"))
            until(lambda: started.progress().get("long", Progress(0)).tokens > 63)
            before = started.progress()["long"].tokens
            started.abort("long")
            assert 63 < before <= running.result(SOON_S).usage.output_tokens < 900
        assert (started.progress(), started.start()) == ({}, limits)
    finally:
        started.stop()
