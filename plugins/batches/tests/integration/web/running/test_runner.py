"""The life of a batch: leases of its runner, cancels, windows, retries, and runners that die or meet."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.broker.admission import Admission
from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.store import Store
from plugins.batches import store as batches
from plugins.batches.running import reading
from plugins.batches.running import runner as module
from plugins.batches.running.feeding import draft_of
from plugins.batches.running.runner import Runner
from plugins.batches.tables import batches as table
from plugins.batches.tests.integration.web.running.conftest import Desk, line, lines, look
from plugins.batches.tests.integration.web.running.test_ending import Died
from tests import one_attempt

QUEUE = "chat.batch"

Begin = Callable[..., UUID]


@pytest.fixture
def window_ends(query: Any) -> Callable[[UUID], None]:
    def end(batch_id: UUID) -> None:
        query("UPDATE batches SET expires_at = now() - interval '1 s' WHERE id = :id", id=batch_id)

    return end


@pytest.fixture
def leases_end(query: Any) -> Callable[[], None]:
    """As if the runners had died a while ago."""

    def end() -> None:
        query("UPDATE batches SET lease_until = now() - interval '1 s'")

    return end


@pytest.fixture
def claimed(store: Store, admission: Admission) -> Callable[[UUID], Any]:
    """Lets a worker claim a job."""

    def claim(job_id: UUID) -> Any:
        with store.begin() as db:
            worker = one_attempt.add_worker(db)
            found = one_attempt.claim(db, job_id, 1, worker, "simulator")
        assert found is not None
        admission.leave([(job_id, 1)])
        return found

    return claim


def states(desk: Desk, batch_id: UUID) -> Counter[str]:
    return Counter(row.state for row in desk.lines(batch_id))


def check_files(desk: Desk, batch_id: UUID, total: int) -> dict[str, dict[str, Any]]:
    """Each line is in one of two files, and the counts say so. Returns: the error file."""
    told = desk.read(batch_id)
    output, errors = desk.results(told["output_file_id"]), desk.results(told["error_file_id"])
    assert not output.keys() & errors.keys()
    assert told["request_counts"] == {"total": total, "completed": len(output), "failed": len(errors)}
    assert len(output) + len(errors) == total
    return errors


class TestLease:
    def test_a_batch_has_one_runner_until_its_lease_ends(
        self, desk: Desk, make_runner: Callable[..., Runner], leases_end: Callable[[], None]
    ) -> None:
        one, other = make_runner(), make_runner()
        batch_id = desk.submit(lines(1))
        assert (one.lease(), other.lease()) == (1, 0)
        assert (one.lease(), other.lease()) == (1, 0)
        leases_end()
        assert (other.lease(), one.lease()) == (1, 0)
        assert [batch.id for batch in other._mine] == [batch_id]

    def test_a_runner_that_stops_gives_its_batches_up(self, desk: Desk, make_runner: Callable[..., Runner]) -> None:
        one, other = make_runner(), make_runner()
        desk.submit(lines(1))
        assert one.lease() == 1
        one.close()
        assert other.lease() == 1

    def test_a_batch_whose_lines_are_just_counted_stays_its_runners(
        self, desk: Desk, store: Store, runner: Runner, begun: Begin
    ) -> None:
        batch_id = begun(lines(1))
        with store.begin() as db:
            db.exec_driver_sql(f"UPDATE batches SET usd = 0 WHERE id = '{batch_id}'")
            leased = threading.Thread(target=runner.lease)
            leased.start()
            assert [batch.id for batch in runner._mine] == [batch_id]
        leased.join()
        assert [batch.id for batch in runner._mine] == [batch_id]


class TestReading:
    def test_a_runner_that_dies_while_it_reads_leaves_a_file_that_is_read_anew(
        self,
        desk: Desk,
        make_runner: Callable[..., Runner],
        leases_end: Callable[[], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(reading, "CHUNK", 2)
        batch_id, put = desk.submit(lines(5)), batches.put_lines
        one, other = make_runner(), make_runner()

        def die_after_a_chunk(*arguments: Any) -> bool:
            assert put(*arguments)
            monkeypatch.setattr(batches, "put_lines", die)
            return True

        def die(*_: object) -> bool:
            raise Died

        monkeypatch.setattr(batches, "put_lines", die_after_a_chunk)
        with pytest.raises(Died):
            look(one, one.read)
        monkeypatch.setattr(batches, "put_lines", put)
        assert len(desk.lines(batch_id)) == 2
        assert desk.read(batch_id)["status"] == "validating"
        leases_end()
        assert look(other, other.read) == 1
        told = desk.read(batch_id)
        assert (told["status"], told["request_counts"]["total"], len(desk.lines(batch_id))) == ("in_progress", 5, 5)

    def test_a_reader_that_lost_its_lease_changes_nothing_more(
        self,
        desk: Desk,
        make_runner: Callable[..., Runner],
        leases_end: Callable[[], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Else the batch would begin with the lines that its new reader has written so far."""
        monkeypatch.setattr(reading, "CHUNK", 2)
        batch_id, begin, put = desk.submit(lines(3)), batches.begin, batches.put_lines
        one, other = make_runner(), make_runner()

        def late(*arguments: Any) -> bool:
            monkeypatch.setattr(batches, "begin", begin)
            leases_end()
            other.lease()
            chunks = 0

            def meanwhile(*given: Any) -> bool:
                nonlocal chunks
                chunks += 1
                if chunks == 2:
                    assert not begin(*arguments), "it lost its lease"
                return put(*given)

            monkeypatch.setattr(batches, "put_lines", meanwhile)
            assert other.read() == 1
            return False

        monkeypatch.setattr(batches, "begin", late)
        look(one, one.read)
        told = desk.read(batch_id)
        assert (told["status"], told["request_counts"]["total"], len(desk.lines(batch_id))) == ("in_progress", 3, 3)

    def test_one_batch_that_fails_holds_up_no_other(
        self, desk: Desk, runner: Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bad, good = desk.submit(lines(1)), desk.submit(lines(1))
        read = reading.read

        def fail_for_one(web: Any, runner_id: UUID, batch: Any) -> Iterator[int]:
            if batch.id == bad:
                raise ValueError("a bug")
            yield from read(web, runner_id, batch)

        monkeypatch.setattr(module, "read", fail_for_one)
        with pytest.raises(ValueError, match="a bug"):
            look(runner, runner.read)
        assert desk.read(good)["status"] == "in_progress", "the next one of its app"
        with pytest.raises(ValueError, match="a bug"):
            look(runner, runner.read)
        assert [desk.read(each)["status"] for each in (bad, good)] == ["validating", "in_progress"]

    def test_apps_take_turns_to_have_their_files_read(
        self,
        desk: Desk,
        runner: Runner,
        client_of: Any,
        make_key: Callable[[str], str],
        query: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Neither many files of one app nor a long one delay another app's."""
        monkeypatch.setattr(reading, "CHUNK", 2)
        mine = [desk.submit(lines(20)), *(desk.submit(lines(1)) for _ in range(2))]
        theirs = Desk(client_of(make_key("other")), desk.store).submit(lines(3))
        assert look(runner, runner.read) == 4
        found = query("SELECT id FROM batches WHERE state = 'in_progress' ORDER BY in_progress_at")
        assert [batch_id for (batch_id,) in found] == [theirs, *mine]


class TestCancel:
    def test_what_waits_ends_and_what_runs_is_cancelled(
        self,
        desk: Desk,
        store: Store,
        runner: Runner,
        begun: Begin,
        answer: Any,
        app: App,
        admission: Admission,
        claimed: Callable[[UUID], Any],
    ) -> None:
        batch_id = begun(lines(6))
        with store.begin() as db:
            taken = [each.custom_id for each in batches.take_lines(db, batch_id, 3)]
        # Of six lines three are submitted: one of them answered, one running, one queued.
        self._submit(desk, store, runner, app, batch_id)
        done, running, queued = taken
        answer(batch_id, done)
        claimed(next(job.id for job in desk.jobs(batch_id) if job.custom_id == running))
        assert admission.loads([QUEUE])[QUEUE].jobs == 1

        told = desk.post(batch_id, "cancel")
        assert (told["status"], told["cancelling_at"] is not None) == ("cancelling", True)
        assert desk.post(batch_id, "cancel")["cancelling_at"] == told["cancelling_at"], "safe to repeat"
        assert look(runner, runner.feed) == 0
        look(runner, runner.settle, runner.end)
        assert desk.read(batch_id)["status"] == "cancelling", "one still runs"
        found = {job.custom_id: job for job in desk.jobs(batch_id)}
        assert (found[queued].state, found[running].state) == ("cancelled", "running")
        assert found[running].cancel_requested_at is not None
        assert admission.loads([QUEUE])[QUEUE].jobs == 0

        with store.begin() as db:
            ended = "UPDATE jobs SET state = 'cancelled', worker_id = NULL, ended_at = now()"
            db.exec_driver_sql(f"{ended} WHERE id = '{found[running].id}'")
        look(runner, runner.settle, runner.end)
        told = desk.read(batch_id)
        assert (told["status"], told["completed_at"]) == ("cancelled", None)
        errors = check_files(desk, batch_id, 6)
        assert set(desk.results(told["output_file_id"])) == {done}
        assert {each["error"]["code"] for each in errors.values()} == {"batch_cancelled"}
        assert desk.post(batch_id, "cancel")["status"] == "cancelled"

    @staticmethod
    def _submit(desk: Desk, store: Store, runner: Runner, app: App, batch_id: UUID) -> None:
        with store.begin() as db:
            batch = batches.find(db, app.id, batch_id)
        for row in desk.lines(batch_id):
            if row.state == "submitted":
                each = batches.Line(
                    batch_id, row.number, row.custom_id, batches.LineState.SUBMITTED, row.body, row.job_id
                )
                runner._web.submitter.submit(draft_of(batch, each), app)

    def test_a_batch_whose_file_is_not_read_ends_without_files(self, desk: Desk, runner: Runner) -> None:
        batch_id = desk.submit(lines(2))
        assert desk.post(batch_id, "cancel")["status"] == "cancelling"
        look(runner, runner.read, runner.end)
        told = desk.read(batch_id)
        assert (told["status"], told["output_file_id"], told["error_file_id"]) == ("cancelled", None, None)
        assert told["request_counts"] == {"total": 0, "completed": 0, "failed": 0}

    def test_lines_that_were_read_before_a_cancel_are_gone_with_it(
        self, desk: Desk, runner: Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reading, "CHUNK", 2)
        batch_id, put = desk.submit(lines(5)), batches.put_lines

        def cancelled_after_a_chunk(*arguments: Any) -> bool:
            if desk.lines(batch_id):
                desk.post(batch_id, "cancel")
            return put(*arguments)

        monkeypatch.setattr(batches, "put_lines", cancelled_after_a_chunk)
        look(runner, runner.read)
        assert len(desk.lines(batch_id)) == 2
        look(runner, runner.end)
        assert desk.lines(batch_id) == []
        assert desk.read(batch_id)["status"] == "cancelled"
        refused = desk.client.post(f"/v1/batches/batch_{batch_id.hex}/retry", json={})
        assert refused.get_json()["error"]["code"] == "nothing_to_retry"

    def test_a_batch_that_has_ended_stays_as_it_is(self, desk: Desk, begun: Begin, run_out: Any) -> None:
        told = run_out(begun(lines(1)))
        assert desk.post(UUID(hex=told["id"].removeprefix("batch_")), "cancel") == told


class TestWindow:
    def test_what_has_not_started_by_then_expires_unpaid(
        self, desk: Desk, runner: Runner, begun: Begin, answer: Any, window_ends: Any, query: Any, client: Any
    ) -> None:
        batch_id = begun(lines(4))
        query("UPDATE batch_lines SET state = 'cancelled' WHERE number > 2")
        assert runner.feed() == 2
        query("UPDATE batch_lines SET state = 'waiting' WHERE number > 2")
        answer(batch_id, "0")
        window_ends(batch_id)
        [late] = [job for job in desk.jobs(batch_id) if job.state == "queued"]
        query("UPDATE jobs SET start_by = now() - interval '1 s' WHERE id = :id", id=late.id)
        assert look(runner, runner.feed) == 0
        look(runner, runner.settle, runner.end)
        assert states(desk, batch_id) == {"succeeded": 1, "submitted": 1, "expired": 2}
        # As the sweep `expire` does.
        assert client.get(f"/v1/jobs/{show_id(late.id)}").get_json()["status"] == "expired"
        look(runner, runner.settle, runner.end)

        told = desk.read(batch_id)
        assert (told["status"], told["expired_at"] is not None) == ("expired", True)
        errors = check_files(desk, batch_id, 4)
        assert {each["error"]["code"] for each in errors.values()} == {"batch_expired"}
        assert set(desk.results(told["output_file_id"])) == {"0"}
        assert query("SELECT sum(usd) = (SELECT usd FROM batches) FROM ledger") == [(True,)]

    def test_a_line_that_runs_at_the_end_of_the_window_still_answers(
        self, desk: Desk, runner: Runner, begun: Begin, answer: Any, window_ends: Any
    ) -> None:
        batch_id = begun(lines(1))
        runner.feed()
        window_ends(batch_id)
        look(runner, runner.settle, runner.end)
        assert desk.read(batch_id)["status"] == "in_progress"
        answer(batch_id)
        look(runner, runner.settle, runner.end)
        assert desk.read(batch_id)["status"] == "completed"

    def test_a_line_that_was_given_back_too_early_ends_as_its_job(
        self, desk: Desk, runner: Runner, begun: Begin, answer: Any, window_ends: Any, query: Any
    ) -> None:
        batch_id = begun(lines(2))
        runner.feed()
        query("UPDATE batch_lines SET state = 'waiting'")
        window_ends(batch_id)
        look(runner, runner.settle)
        assert states(desk, batch_id) == {"submitted": 2}
        answer(batch_id)
        look(runner, runner.settle, runner.end)
        assert desk.read(batch_id)["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


class TestRetry:
    def test_exactly_the_lines_without_an_answer_run_again(
        self, desk: Desk, store: Store, runner: Runner, begun: Begin, answer: Any, run_out: Any, window_ends: Any
    ) -> None:
        batch_id = begun([*lines(2), line("bad", temperature=9)], metadata={"run": "7"})
        runner.feed()
        answer(batch_id, "0")
        desk.post(batch_id, "cancel")
        look(runner, runner.settle, runner.settle, runner.end)
        assert desk.read(batch_id)["status"] == "cancelled"

        told = desk.post(batch_id, "retry", completion_window="2h")
        again = UUID(hex=told["id"].removeprefix("batch_"))
        assert (told["status"], told["completion_window"]) == ("validating", "2h")
        assert (told["metadata"], told["job"]["retry_of"]) == ({"run": "7"}, f"batch_{batch_id.hex}")
        look(runner, runner.read)
        assert desk.read(again)["request_counts"] == {"total": 2, "completed": 0, "failed": 0}
        assert {row.custom_id for row in desk.lines(again)} == {"1", "bad"}
        run_out(again)
        errors = check_files(desk, again, 2)
        assert set(errors) == {"bad"}
        assert len(desk.jobs(batch_id)) == 2

    def test_only_an_ended_batch_with_lines_left_is_retried(
        self, desk: Desk, begun: Begin, run_out: Any, client: Any
    ) -> None:
        batch_id = begun(lines(1))

        def code() -> str:
            refused = client.post(f"/v1/batches/batch_{batch_id.hex}/retry", json={})
            assert refused.status_code == 400
            return str(refused.get_json()["error"]["code"])

        assert code() == "batch_not_ended"
        run_out(batch_id)
        assert code() == "nothing_to_retry"


class TestTwoRunners:
    def test_two_at_once_submit_and_settle_each_line_once(
        self, desk: Desk, make_runner: Callable[..., Runner], begun: Begin, answer: Any, runner: Runner
    ) -> None:
        """The one was stopped for longer than its lease, and goes on while the other has the batch."""
        batch_id, other = begun(lines(40)), make_runner()
        other._mine = list(runner._mine)
        assert runner.feed() + other.feed() == 40
        assert len(answer(batch_id)) == 40
        assert runner.settle() + other.settle() == 40
        assert desk.read(batch_id)["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
        assert runner.end() + other.end() == 1
        check_files(desk, batch_id, 40)

    def test_their_steps_may_overlap(
        self, desk: Desk, make_runner: Callable[..., Runner], begun: Begin, answer: Any, runner: Runner
    ) -> None:
        batch_id, other = begun(lines(120)), make_runner()
        other._mine = list(runner._mine)
        with ThreadPoolExecutor(2) as threads:
            for step in ("feed", "settle", "end"):
                both = [threads.submit(getattr(each, step)) for each in (runner, other)]
                for each in both:
                    each.result()
                answer(batch_id)
        look(runner, runner.settle, runner.end)
        assert len(desk.jobs(batch_id)) == 120
        check_files(desk, batch_id, 120)


def test_an_ended_batch_is_announced_to_its_app(
    desk: Desk, begun: Begin, run_out: Any, query: Any, app: App, build_web: Any
) -> None:
    batch_id = begun(lines(1))
    query("UPDATE batches SET webhook_url = 'https://receiver.example/hook'")
    run_out(batch_id)
    [(event, data, owner, url)] = query("SELECT event, data, app_id, url FROM deliveries")
    assert (event, data, owner) == ("batch.completed", {"id": f"batch_{batch_id.hex}"}, app.id)
    assert url == "https://receiver.example/hook"


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What Postgres is asked."""
    heard = list[str]()
    sa.event.listen(sa.Engine, "before_cursor_execute", note := lambda *given: heard.append(given[2]), named=False)
    yield heard
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_a_look_at_batches_in_which_nothing_ended_is_one_statement_for_all(
    begun: Begin, runner: Runner, said: list[str]
) -> None:
    for _ in range(3):
        begun(lines(2))
    look(runner, runner.feed)
    said.clear()
    assert (runner.settle(), runner.end()) == (0, 0)
    assert len(said) == 2


def test_without_a_batch_a_look_asks_nothing(store: Store, runner: Runner, said: list[str]) -> None:
    assert runner.lease() == 0
    said.clear()
    assert (runner.feed(), runner.settle(), runner.give_back_lost(), runner.end()) == (0, 0, 0, 0)
    assert said == []


@pytest.fixture
def jumps(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Sets the host's clock for the modules that move batches on."""

    def to(ahead: timedelta) -> None:
        class Jumped(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime.now(tz) + ahead

        for name in ("ending", "feeding", "gathering", "runner"):
            monkeypatch.setattr(f"plugins.batches.running.{name}.datetime", Jumped, raising=False)

    return to


@pytest.mark.parametrize("ahead", [timedelta(days=2), timedelta(days=-2)])
def test_a_jump_of_the_hosts_clock_ends_no_window_and_begins_none(
    desk: Desk,
    runner: Runner,
    begun: Begin,
    run_out: Callable[[UUID], Any],
    window_ends: Callable[[UUID], None],
    jumps: Callable[[timedelta], None],
    ahead: timedelta,
) -> None:
    open_one, over, later = begun(lines(3)), begun(lines(2)), begun(lines(2))
    window_ends(over)
    with desk.store.begin() as db:
        soon = {"not_before": sa.func.now() + timedelta(days=1), "expires_at": sa.func.now() + timedelta(days=2)}
        db.execute(sa.update(table).where(table.c.id == later).values(soon))
    jumps(ahead)

    assert look(runner, runner.settle, runner.feed) == 3
    assert {row.state for row in desk.lines(open_one)} == {"submitted"}
    assert {row.state for row in desk.lines(over)} == {"expired"}
    assert {row.state for row in desk.lines(later)} == {"waiting"}
    for job in desk.jobs(open_one):
        assert timedelta(hours=23) < job.start_by - job.created_at <= timedelta(hours=24)
    assert run_out(open_one)["status"] == "completed"
