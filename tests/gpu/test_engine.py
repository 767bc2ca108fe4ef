"""What every engine must do, on vLLM for CUDA; and that a plan on paper agrees with what this GPU then holds.

`pytest -m gpu` on a machine with a GPU runs it. It was written on one without: its code has run on vLLM's CPU build,
its figures for a GPU have not been seen.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.config import PoolSettings
from headrace.connections import model_files
from headrace.domain.shapes import ModelShape
from headrace.errors import EngineCrash
from headrace.policies.sizing import Gpu, Serving, plan
from headrace.stack.model import PreparedModel
from tests.contracts import test_engine as contract
from tests.gpu.machine import devices, on_a_gpu
from tests.waiting import until
from workers.engines.vllm.engine import VllmEngine

pytestmark = on_a_gpu

#: How far a plan on paper may be off.
TOLERANCE = 0.02
BATCH = 20


@pytest.fixture(scope="module")
def bench(pool: PoolSettings) -> Iterator[contract.Bench]:
    """The engine as it is started in production: no options, the whole GPU, graphs captured."""
    engine = VllmEngine(pool, model_files.tokenizer(pool.model, pool.model_dir))
    yield contract.Bench(
        engine,
        long=("a long story", 900),
        underway=lambda first_piece: first_piece.wait(contract.SOON_S),
        let_go=lambda: None,
    )
    engine.stop()


engine = contract.engine
test_start_says_what_the_engine_can_hold = contract.test_start_says_what_the_engine_can_hold
test_an_answer_comes_with_its_usage_and_its_model = contract.test_an_answer_comes_with_its_usage_and_its_model
test_twenty_overlapping_calls_get_their_own_answers = contract.test_overlapping_calls_get_their_own_answers
test_pieces_add_up_to_the_text = contract.test_pieces_add_up_to_the_text
test_a_prompt_that_never_fits_is_rejected = contract.test_a_prompt_that_never_fits_is_rejected
test_abort_ends_a_running_call = contract.test_abort_ends_a_running_call_and_the_engine_goes_on
test_progress_names_what_runs_and_nothing_else = contract.test_progress_names_what_runs_and_nothing_else


def test_the_cache_has_the_tokens_that_a_plan_on_paper_gives_it(engine: VllmEngine, shape: ModelShape) -> None:
    limits = engine.start()  # It runs already, and tells again.
    assert limits.kv_tokens is not None
    assert limits.kv_block_tokens is not None
    # The rates are of no account here.
    gpu = Gpu(devices()[0].memory_bytes, bytes_per_s=1.0, flops=1.0)
    planned = plan(shape, gpu, Serving(block_tokens=limits.kv_block_tokens, max_running=limits.max_running))

    assert limits.kv_tokens == pytest.approx(planned.pool.tokens, rel=TOLERANCE)


def test_the_driver_says_how_the_gpu_is_used(engine: VllmEngine) -> None:
    gpus = engine.stats().gpus
    assert gpus.busy is not None
    assert 0 <= gpus.busy <= 1
    # The engine takes 92 % of the memory.
    assert 0.5 < (gpus.memory or 0) <= 1
    assert (gpus.watts or 0) > 1


def test_the_weights_are_as_large_as_a_plan_on_paper_says(model: PreparedModel, shape: ModelShape) -> None:
    # vLLM does not tell what it has loaded; these are the files that it loads.
    weights = sum(file.stat().st_size for file in model.folder.glob("*.safetensors"))
    assert shape.weight_bytes() == pytest.approx(weights, rel=TOLERANCE)


def test_a_batch_that_is_aborted_leaves_the_cache_to_the_next(bench: contract.Bench, engine: VllmEngine) -> None:
    before = engine.start()
    with ThreadPoolExecutor(BATCH) as threads:
        running = [contract.begin(bench, threads, f"aborted-{i}") for i in range(BATCH)]
        for i in range(BATCH):
            engine.abort(f"aborted-{i}")
        reasons = {call.result(contract.SOON_S).finish_reason for call in running}
    assert (reasons, engine.progress(), engine.start()) == ({"abort"}, {}, before)
    until(lambda: (engine.stats().running, engine.stats().kv_use) == (0, 0.0))

    with ThreadPoolExecutor(BATCH) as threads:
        answers = list(threads.map(engine.generate, map(contract.own, range(BATCH))))
    assert [answer.preemptions for answer in answers] == [0] * BATCH


def test_a_core_that_is_killed_fails_its_calls_and_start_replaces_it(bench: contract.Bench, engine: VllmEngine) -> None:
    core = contract.core_pid(engine)
    with ThreadPoolExecutor(BATCH) as threads:
        running = [contract.begin(bench, threads, f"lost-{i}") for i in range(BATCH)]
        os.kill(core, signal.SIGKILL)
        for call in running:
            with pytest.raises(EngineCrash) as crash:
                call.result(contract.SOON_S)
            assert crash.value.made_tokens > 0
    # Loading it again shows too that the GPU's memory has come back.
    engine.start()
    assert contract.core_pid(engine) != core
    assert contract.answer_of(6) in engine.generate(contract.own(6)).text
