"""The served model on this machine's GPU: the demo's, or the one that HEADRACE_MODEL or HEADRACE_MODEL_DIR names."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from headrace.config import PoolSettings, Settings
from headrace.connections import model_files
from headrace.domain.shapes import ModelShape
from headrace.stack.model import PreparedModel, prepare
from workers.engines.vllm.engine import VllmEngine

#: Opens a started engine of the model with these engine options, and stops it.
Started = Callable[..., AbstractContextManager[VllmEngine]]


@pytest.fixture(scope="session")
def model() -> PreparedModel:
    """The model's name and the folder with its weights; downloaded where it must be."""
    return prepare(Settings.load(engine="vllm"), print)


@pytest.fixture(scope="session")
def shape(model: PreparedModel) -> ModelShape:
    """What a plan on paper knows of the model."""
    return ModelShape.of(json.loads((model.folder / "config.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def heads(model: PreparedModel) -> int:
    """Of its attention, that are shared out among GPUs."""
    config = json.loads((model.folder / "config.json").read_text(encoding="utf-8"))
    return int(config["num_attention_heads"])


@pytest.fixture(scope="session")
def pool(model: PreparedModel) -> PoolSettings:
    """A pool of the model that leaves the KV cache's size to vLLM."""
    return PoolSettings(model=model.model, model_dir=model.folder, max_model_tokens=1024)


@contextmanager
def running(pool: PoolSettings) -> Iterator[VllmEngine]:
    """A started engine of this pool, which is stopped before the next one needs the GPU's memory."""
    engine = VllmEngine(pool, model_files.tokenizer(pool.model, pool.model_dir))
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def started(pool: PoolSettings) -> Started:
    """Makes started engines with some options."""
    return lambda **options: running(pool.model_copy(update={"engine_options": options}))
