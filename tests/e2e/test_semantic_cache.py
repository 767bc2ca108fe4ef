"""The semantic cache in a whole system: a job behind a busy engine ends with the answer of one that asked alike."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from headrace.domain.ids import parse_id
from tests.waiting import until

#: One slot, and 20 tokens a second: a long answer keeps the engine busy for 20 s.
SETTINGS = """
[pools.chat]
model = "large"
max_running = 1
cache_s = 3600

[pools.chat.semantic_cache]
pool = "embed"

[pools.patient]
model = "patient"
cache_s = 3600

[pools.patient.semantic_cache]
pool = "embed"
hold_s = 2

[pools.embed]
serves = "embeddings"
model = "words"

[simulator]
decode_tokens_per_s = 20
output_tokens = 400
"""
ASKED = "How do I turn on dark mode?"
#: Several, because two in a hundred run all the same.
SAME = ["How can I turn on dark mode?", "how can I turn on dark mode?", "How do I turn on the dark mode?"]
#: To the simulator's embeddings too, which are bags of words.
ALMOST_SAME = [
    "How do I turn on the dark mode?",
    "Please, how do I turn on dark mode?",
    "How do I turn on dark mode, please?",
]
OPPOSITE = "How do I turn off dark mode?"
TRUST = """
    INSERT INTO cache_matches (job_id, app_id, pool, entry_id, similarity, kind, is_right)
    SELECT gen_random_uuid(), app_id, pool, job_id, 0.6, 'try', true FROM cache_entries, generate_series(1, 100)
    WHERE job_id = %s RETURNING job_id
"""


@pytest.fixture(scope="module")
def system(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("settings") / "headrace.toml"
    path.write_text(SETTINGS)
    return start(config=str(path), drain_s="1")


def ask(system: Any, prompt: str, max_tokens: int = 4, model: str = "large") -> str:
    job_id: str = system.submit(prompt=prompt, temperature=0, max_tokens=max_tokens, model=model)
    return job_id


def trusted(system: Any, model: str = "large") -> tuple[str, Any]:
    """Ask once, and let the entry have passed tries. Returns: the job, and its answer."""
    first = ask(system, ASKED, model=model)
    answer = system.ended(first)
    assert (answer["status"], answer["cache"]) == ("succeeded", "miss")
    until(lambda: system.sql("SELECT FROM cache_entries WHERE job_id = %s", parse_id(first)), "its entry")
    assert len(system.sql(TRUST, parse_id(first))) == 100
    return first, answer


def test_a_job_behind_a_busy_engine_ends_with_the_answer_to_the_same_question(system: Any) -> None:
    first, answer = trusted(system)
    busy = ask(system, "Tell me all about water.", max_tokens=400)
    until(lambda: system.count("running") == 1, "the engine is busy")

    opposite, same = ask(system, OPPOSITE), [ask(system, prompt) for prompt in SAME]
    served = [job for job in system.all_ended(same) if job["cache"] == "semantic"]

    assert served
    assert {(job["text"], job["served_by"], job["cost"]["usd"]) for job in served} == {
        (answer["text"], first, "0.000000000")
    }
    assert system.ended(opposite)["cache"] == "miss"
    assert system.ended(opposite)["text"] != answer["text"]
    assert system.ended(busy)["status"] == "succeeded"
    [row] = system.sql("SELECT sum(served) AS served, max(error_share) AS error FROM semantic_cache_per_day")
    assert row["served"] == len(served)


def test_a_free_engine_of_a_pool_that_holds_jobs_leaves_it_to_the_cache(system: Any) -> None:
    first, answer = trusted(system, "patient")
    jobs = [system.ended(ask(system, prompt, model="patient")) for prompt in ALMOST_SAME]
    served = [job for job in jobs if job["cache"] == "semantic"]
    assert len(served) >= 2
    assert {(job["text"], job["served_by"]) for job in served} == {(answer["text"], first)}
    assert system.ended(ask(system, OPPOSITE, model="patient"))["cache"] == "miss"


def test_without_the_worker_that_looks_them_up_jobs_run(system: Any) -> None:
    pid = system.pid("gpu-embed")
    os.kill(pid, signal.SIGKILL)
    assert system.ended(ask(system, "How do I turn on the light?"))["status"] == "succeeded"
    system.restarted("gpu-embed", pid)
