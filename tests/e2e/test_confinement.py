"""An app that sends one prompt after the other that kills the engine: it is confined, and other apps' jobs succeed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headrace.config import Settings
from headrace.connections import postgres
from headrace.domain.states import TERMINAL
from headrace.policies.retries import STRIKES
from headrace.store import apps, keys

#: A prompt with this in it kills the engine.
POISON = "hemlock"
#: Distinct poison prompts of the confined app.
PROMPTS = 6
NEIGHBOURS = 30
PEPPER = "of-the-tests"
UNTIL = "x-headrace-confined-until"


@pytest.fixture(scope="module")
def system(start: Callable[..., Any]) -> Any:
    return start(
        simulator__output_tokens="16",
        simulator__decode_tokens_per_s="16",
        simulator__poison=POISON,
        pools__chat__max_running="8",
        pepper=PEPPER,
    )


@pytest.fixture(scope="module")
def attacker(system: Any) -> Iterator[httpx2.Client]:
    """The client of another app than the neighbours'."""
    settings = Settings.load(database_url=system.stack.report.database_url, pepper=PEPPER)
    engine = postgres(settings, pool_size=1)
    with engine.begin() as db:
        key = keys.make(db, apps.ensure(db, "attacker").id, PEPPER)
    engine.dispose()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=system.stack.report.url, headers=headers, timeout=50) as client:
        yield client


def crashes(system: Any) -> list[str]:
    """What the worker logged of each engine that died."""
    log: Path = system.stack.state_dir / "logs" / "gpu.log"
    return [line for line in log.read_text().splitlines() if "engine_dead" in line]


def outcomes(client: httpx2.Client, ids: list[str]) -> list[tuple[str, str] | None]:
    """Status and error code of each job that has ended."""
    jobs = [client.get(f"/v1/jobs/{each}").json() for each in ids]
    return [
        (job["status"], (job["error"] or {"code": ""})["code"]) if job["status"] in TERMINAL else None for job in jobs
    ]


def test_an_app_whose_every_prompt_is_poison_kills_few_engines_and_no_job_of_another_app(
    system: Any, attacker: httpx2.Client, wait_until: Callable[..., None]
) -> None:
    def post(number: int) -> httpx2.Response:
        return attacker.post("/v1/jobs", json={"prompt": f"Cup {number} of {POISON}, please.", "max_wait": 25})

    strikes = [post(number).json()["id"] for number in range(STRIKES)]
    wait_until(lambda: outcomes(attacker, strikes) == [("failed", "engine_crash")] * STRIKES, "the app has its strikes")
    harmless: list[str] = []

    def confined() -> bool:
        job = {"prompt": "Why is the sky blue?", "max_tokens": 1, "max_wait": 1}
        answer = attacker.post("/v1/jobs", json=job)
        harmless.append(answer.json()["id"])
        return UNTIL in answer.headers

    wait_until(confined, "the app is confined, and every process knows")
    wait_until(lambda: None not in outcomes(attacker, harmless), "no job of the app is ahead of the next ones")
    # The worker logs a death before it starts the engine again, and the last strike's may not be logged yet.
    system.all_ended(system.submit_many(1), 60)
    before = len(crashes(system))

    ids = [post(STRIKES + number).json()["id"] for number in range(PROMPTS)]
    ended = system.all_ended(system.submit_many(NEIGHBOURS), 120)
    wait_until(lambda: None not in outcomes(attacker, ids), "the attacker's jobs have ended")

    assert {(job["status"], job["attempts"]) for job in ended} == {("succeeded", 1)}
    # Each prompt kills two engines, one beside other jobs and one alone. The first one pauses the app for a minute.
    died = crashes(system)[before:]
    assert len(died) <= 2, died
    assert sorted(filter(None, outcomes(attacker, ids))) == [
        *[("expired", "app_confined")] * (PROMPTS - 1),
        ("failed", "engine_crash"),
    ]
