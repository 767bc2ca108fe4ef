"""Random lives of a batch: whatever runners, workers and clients do and in which order, each line ends exactly once."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.store import Store
from plugins.batches import store as batches
from plugins.batches.domain import BATCH_PREFIX, Line, LineState
from plugins.batches.running.feeding import draft_of
from plugins.batches.running.runner import Runner
from plugins.batches.tests.integration.web.running.conftest import Desk, line, look
from tests.web import ApiClient

LINES = 7
EXAMPLES = 25
STEPS = (
    *("feed", "feed", "take_and_die", "submit_late", "give_back_early", "settle", "settle", "end", "give_back_lost"),
    *("answer", "answer", "cancel_job", "expire_job", "cancel", "window_ends"),
)


class Life:
    """A batch, and all that may happen to it. Each step is one of `STEPS`."""

    def __init__(self, desk: Desk, runner: Runner, app: App, query: Any, finish: Any) -> None:
        self._desk, self._runner, self._app, self._query, self._finish = desk, runner, app, query, finish
        asked = [line(str(number), f"Question {number}") for number in range(LINES)]
        self.batch_id = desk.submit([*asked, line("bad", temperature=9)])
        look(runner, runner.read)
        runner.lease()

    @property
    def state(self) -> str:
        return str(self._desk.read(self.batch_id)["status"])

    def feed(self) -> None:
        self._runner._feeder._resting.clear()
        look(self._runner, self._runner.feed)

    def take_and_die(self) -> None:
        with self._desk.store.begin() as db:
            batches.take_lines(db, self.batch_id, 2)

    def submit_late(self) -> None:
        """What a runner does that was stopped between its steps: it submits lines that it took a while ago."""
        with self._desk.store.begin() as db:
            batch = batches.find(db, self._app.id, self.batch_id)
        for row in self._desk.lines(self.batch_id):
            if row.job_id is not None and row.custom_id != "bad" and not self._jobs(row.job_id):
                taken = Line(batch.id, row.number, row.custom_id, LineState.SUBMITTED, row.body, row.job_id)
                if row.state == "submitted":
                    self._runner._web.submitter.submit(draft_of(batch, taken), self._app)

    def give_back_early(self) -> None:
        numbers = [row.number for row in self._desk.lines(self.batch_id)][::2]
        with self._desk.store.begin() as db:
            batches.give_back(db, self.batch_id, numbers)

    def give_back_lost(self) -> None:
        self._query("UPDATE batch_lines SET submitted_at = submitted_at - interval '11 s'")
        look(self._runner, self._runner.give_back_lost)

    def settle(self) -> None:
        look(self._runner, self._runner.settle)

    def end(self) -> None:
        look(self._runner, self._runner.end)

    def answer(self) -> None:
        for job_id in self._queued()[:2]:
            self._finish(job_id)
            self._runner._web.admission.leave([(job_id, 1)])

    def cancel_job(self) -> None:
        for job_id in self._queued()[:1]:
            self._desk.client.post(f"/v1/jobs/{show_id(job_id)}/cancel")

    def expire_job(self) -> None:
        for job_id in self._queued()[:1]:
            self._query("UPDATE jobs SET start_by = now() - interval '1 s' WHERE id = :id", id=job_id)
            self._desk.client.get(f"/v1/jobs/{show_id(job_id)}")

    def cancel(self) -> None:
        self._desk.post(self.batch_id, "cancel")

    def window_ends(self) -> None:
        self._query("UPDATE batches SET expires_at = now() - interval '1 s' WHERE id = :id", id=self.batch_id)

    def come_to_an_end(self) -> None:
        """All that runs by itself goes on."""
        for _ in range(LINES):
            self.give_back_lost()
            self.feed()
            while self._queued():
                self.answer()
            self.settle()
            self.end()

    def check(self) -> None:
        """What holds at every moment."""
        told, rows = self._desk.read(self.batch_id)["request_counts"], self._desk.lines(self.batch_id)
        found = Counter(row.state for row in rows)
        assert told == {
            "total": LINES + 1,
            "completed": found["succeeded"],
            "failed": found["failed"] + found["expired"] + found["cancelled"],
        }
        made = self._desk.jobs(self.batch_id)
        assert max(Counter(job.custom_id for job in made).values(), default=1) == 1, "one job for each line"

    def check_end(self) -> None:
        told = self._desk.read(self.batch_id)
        output, errors = (self._desk.results(told[f"{name}_file_id"]) for name in ("output", "error"))
        assert told["status"] in ("completed", "expired", "cancelled")
        assert sorted([*output, *errors]) == sorted([*map(str, range(LINES)), "bad"]), "each line in one file"
        assert told["request_counts"] == {"total": LINES + 1, "completed": len(output), "failed": len(errors)}
        answered = {job.custom_id for job in self._desk.jobs(self.batch_id) if job.state == "succeeded"}
        assert set(output) == answered
        [(billed,)] = self._query(
            "SELECT sum(usd) FROM jobs WHERE notes->>'batches' = :id", id=show_id(self.batch_id, BATCH_PREFIX)
        )
        [(summed,)] = self._query("SELECT usd FROM batches WHERE id = :id", id=self.batch_id)
        assert summed == (billed or 0)

    def _jobs(self, job_id: UUID) -> bool:
        return any(job.id == job_id for job in self._desk.jobs(self.batch_id))

    def _queued(self) -> list[UUID]:
        return [job.id for job in self._desk.jobs(self.batch_id) if job.state == "queued"]


def test_each_line_ends_once_in_one_file_whatever_happens(
    desk: Desk, client: ApiClient, store: Store, runner: Runner, app: App, query: Any, finish: Callable[..., None]
) -> None:
    @effort(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(st.sampled_from(STEPS), max_size=14))
    def live(steps: Sequence[str]) -> None:
        life = Life(desk, runner, app, query, finish)
        for step in steps:
            getattr(life, step)()
            life.check()
        life.come_to_an_end()
        life.check_end()

    live()
