"""LoRA adapters on the real engine: a request that names one gets its answer, and no other request does."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from headrace.config import PoolSettings, Settings
from headrace.errors import ConfigError, PromptRejected
from tests.contracts.test_engine import free, tiny_pool
from workers.engines import load
from workers.engines.base import Engine, Generation

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not available on this platform"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own.
]


def pool_of(folder: Path, **adapters: Path) -> PoolSettings:
    return tiny_pool(folder).model_copy(update={"adapters": {name: str(place) for name, place in adapters.items()}})


def made(pool: PoolSettings) -> Engine:
    return load("vllm", Settings(pools={"small": pool}, pool="small"), pool)


@pytest.fixture(scope="module")
def engine(tiny_llama: Path, tiny_adapter: Path) -> Iterator[Engine]:
    engine = made(pool_of(tiny_llama, tuned=tiny_adapter, same=tiny_adapter))
    engine.start()
    yield engine
    engine.stop()


def ask(engine: Engine, adapter: str | None, prefix: str = "") -> Generation:
    return engine.generate(replace(free(prefix, request_id=f"of {adapter}"), adapter=adapter))


def test_an_adapter_answers_in_its_own_words_and_under_its_name(engine: Engine) -> None:
    base, tuned, same = (ask(engine, adapter) for adapter in (None, "tuned", "same"))
    assert tuned.text == same.text != base.text
    assert [each.model_served for each in (base, tuned, same)] == ["tests/tiny-llama", "tuned", "same"]


def test_one_batch_holds_the_model_and_its_adapters(engine: Engine) -> None:
    alone = {adapter: ask(engine, adapter).text for adapter in (None, "tuned")}
    asked = [None, "tuned"] * 5
    with ThreadPoolExecutor(len(asked)) as threads:
        requests = [replace(free(request_id=f"no-{i}"), adapter=adapter) for i, adapter in enumerate(asked)]
        answers = list(threads.map(engine.generate, requests))
    assert [answer.text for answer in answers] == [alone[adapter] for adapter in asked]


def test_an_adapter_goes_on_behind_a_prefix(engine: Engine) -> None:
    whole = ask(engine, "tuned")
    continued = ask(engine, "tuned", prefix=whole.text[:10])
    assert continued.text.startswith(whole.text[:10])
    assert continued.model_served == "tuned"


def test_an_adapter_that_was_taken_away_rejects_its_jobs(engine: Engine) -> None:
    with pytest.raises(PromptRejected, match="'gone'"):
        ask(engine, "gone")
    engine.check()


def test_an_adapter_that_vllm_cannot_load_is_named_at_the_start(
    tiny_llama: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_adapter, tmp_path / "other"))
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    engine = made(pool_of(tiny_llama, good=tiny_adapter, bad=other))
    with pytest.raises(ConfigError) as raised:
        engine.start()
    engine.stop()
    assert raised.value.param == "pools.small.adapters.bad"
    assert "DoRA" in str(raised.value)
