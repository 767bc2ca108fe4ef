"""The ends of lines and of batches: exact results, counts that equal the files, and processes that die meanwhile."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from headrace.domain.apps import App
from headrace.domain.ids import month_start, show_id
from headrace.domain.states import JobState
from headrace.errors import StoreUnavailable
from headrace.store import Store, states
from headrace.store.jobs import texts
from headrace.tables import jobs as table
from plugins.batches import store as batches
from plugins.batches.domain import BATCH_PREFIX
from plugins.batches.running import ending
from plugins.batches.running.runner import Runner
from plugins.batches.settings import BatchSettings
from plugins.batches.storage.base import StorageUnavailable
from plugins.batches.storage.folder import _FolderWriter as FolderWriter
from plugins.batches.tests.integration.web.running.conftest import MODEL, Desk, line, lines, look
from tests.integration.months_of_jobs import id_at, make_past_months
from tests.web import ApiClient, Web

ANSWER = "Because of Rayleigh scattering."

Begin = Callable[..., UUID]


class Died(BaseException):
    """The process ends here."""


def leave(file: ending._ResultFile) -> None:
    """What the end of a process does with a file."""
    if isinstance(file._writer, FolderWriter):
        file._writer._file.close()


@pytest.fixture
def fail(store: Store) -> Callable[[UUID], None]:
    """Ends a queued job as one that gave up."""

    def end(job_id: UUID) -> None:
        with store.begin() as db:
            error = {"error_code": "engine_fault", "error_message": "The engine failed."}
            assert states.transition(db, [JobState.QUEUED], JobState.FAILED, table.c.id == job_id, **error)

    return end


def test_an_answer_is_a_line_of_the_output_file_as_openai_writes_it(
    desk: Desk, client: ApiClient, runner: Runner, begun: Begin, answer: Any
) -> None:
    batch_id = begun([line("a"), line("b", max_tokens=8)])
    runner.feed()
    answer(batch_id)
    assert look(runner, runner.settle, runner.end) == 1

    told = desk.read(batch_id)
    assert (told["status"], told["error_file_id"]) == ("completed", None)
    assert told["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    file = client.get(f"/v1/files/{told['output_file_id']}").get_json()
    assert (file["purpose"], file["filename"]) == ("batch_output", f"batch_{batch_id.hex}_output.jsonl")
    assert file["expires_at"] == file["created_at"] + 30 * 86_400
    assert file["bytes"] == len(client.get(f"/v1/files/{told['output_file_id']}/content").data)
    found = desk.results(told["output_file_id"])
    assert list(found) == ["a", "b"]
    job = desk.jobs(batch_id)[0]
    [number] = [row.number for row in desk.lines(batch_id) if row.job_id == job.id]
    body = found[job.custom_id]["response"].pop("body")
    assert found[job.custom_id] == {
        "id": f"batch_req_{batch_id.hex}_{number}",
        "custom_id": job.custom_id,
        "response": {"status_code": 200, "request_id": show_id(job.id, "req_")},
        "error": None,
    }
    assert (body["object"], body["id"], body["model"]) == ("chat.completion", show_id(job.id, "chatcmpl-"), MODEL)
    assert body["choices"][0]["message"]["content"] == ANSWER
    assert body["usage"]["total_tokens"] == 16


@pytest.mark.parametrize(
    ("url", "body", "kind"),
    [
        ("/v1/responses", {"input": "Why?"}, "response"),
        ("/v1/completions", {"prompt": "Why?"}, "text_completion"),
    ],
)
def test_answers_have_the_format_of_their_endpoint(
    desk: Desk, runner: Runner, begun: Begin, answer: Any, url: str, body: dict[str, Any], kind: str
) -> None:
    asked = {"custom_id": "a", "method": "POST", "url": url, "body": {"model": MODEL, **body}}
    batch_id = begun([asked], url=url)
    assert runner.feed() == 1
    answer(batch_id)
    look(runner, runner.settle, runner.end)
    [result] = desk.results(desk.read(batch_id)["output_file_id"]).values()
    assert result["response"]["body"]["object"] == kind


def test_lines_without_an_answer_are_in_the_error_file_with_what_became_of_each(
    desk: Desk, client: ApiClient, store: Store, runner: Runner, begun: Begin, fail: Any, answer: Any, app: App
) -> None:
    batch_id = begun(
        [line("refused", temperature=9), line("failed"), line("stopped"), line("answered"), line("erased")]
    )
    runner.feed()
    ids = {job.custom_id: job.id for job in desk.jobs(batch_id)}
    fail(ids["failed"])
    assert client.post(f"/v1/jobs/{show_id(ids['stopped'])}/cancel").status_code == 200
    answer(batch_id, "answered", "erased")
    with store.begin() as db:
        texts.erase(db, app.id, ids["erased"])
    assert look(runner, runner.settle, runner.end) == 1

    told = desk.read(batch_id)
    assert told["status"] == "completed"
    assert told["request_counts"] == {"total": 5, "completed": 1, "failed": 4}
    assert set(desk.results(told["output_file_id"])) == {"answered"}
    found = desk.results(told["error_file_id"])
    assert {name: (each["response"] or {}).get("status_code") for name, each in found.items()} == {
        "refused": 400,
        "failed": 502,
        "stopped": 409,
        "erased": None,
    }
    assert {name: each["error"] and each["error"]["code"] for name, each in found.items()} == {
        "refused": None,
        "failed": None,
        "stopped": None,
        "erased": "erased",
    }
    assert found["refused"]["response"]["body"]["error"]["param"] == "temperature"
    assert found["failed"]["response"]["body"]["error"]["code"] == "engine_fault"
    assert found["stopped"]["response"]["body"]["error"]["code"] == "job_cancelled"


def test_a_batch_without_an_answer_completes_without_an_output_file(desk: Desk, runner: Runner, begun: Begin) -> None:
    batch_id = begun([line("a", temperature=9)])
    runner.feed()
    assert look(runner, runner.settle, runner.end) == 1
    told = desk.read(batch_id)
    assert (told["status"], told["output_file_id"]) == ("completed", None)
    assert told["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
    assert set(desk.results(told["error_file_id"])) == {"a"}
    times = [told[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")]
    assert times == sorted(times)
    assert (told["failed_at"], told["expired_at"], told["cancelling_at"], told["cancelled_at"]) == (None,) * 4


def test_usage_and_cost_are_the_sums_of_the_answers(
    desk: Desk, runner: Runner, begun: Begin, run_out: Any, query: Any
) -> None:
    batch_id = begun([line("a"), line("think", "think"), line("bad", temperature=9)])
    told = run_out(batch_id)
    assert told["usage"] == {
        "input_tokens": 18,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 14,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 32,
    }
    [(billed,)] = query(
        "SELECT sum(ledger.usd) FROM ledger JOIN jobs ON jobs.id = job_id WHERE notes->>'batches' = :id",
        id=show_id(batch_id, BATCH_PREFIX),
    )
    assert Decimal(str(told["job"]["usd"])) == billed == Decimal("0.00000246")


def test_a_view_has_what_each_batch_cost(desk: Desk, begun: Begin, run_out: Any, query: Any) -> None:
    run_out(begun([line("a"), line("b", "another"), line("bad", temperature=9)]))
    begun(lines(2), window="90m")
    counts = "app, state, completion_window, lines, completed, failed, jobs, prompt_tokens, output_tokens, usd"
    assert query(f"SELECT {counts} FROM batch_costs ORDER BY batch_id") == [
        ("test", "completed", "24h", 3, 2, 1, 2, 18, 14, Decimal("0.00000246")),
        ("test", "in_progress", "90m", 2, 0, 0, 0, 0, 0, 0),
    ]
    [(began, ended, first, last, public_id, batch_id)] = query(
        "SELECT created_at, ended_at, first_started_at, last_ended_at, public_id, batch_id FROM batch_costs"
        " WHERE state = 'completed'"
    )
    assert began < first < last < ended
    assert public_id == f"batch_{batch_id.hex}"


def test_lines_use_the_cache_and_share_one_attempt(
    desk: Desk, build_web: Any, make_runner: Any, web: Web, settings: Any, answer: Any, query: Any
) -> None:
    pools = {
        name: pool.model_copy(update={"cache_s": 60.0, "single_flight": True}) for name, pool in settings.pools.items()
    }
    caching = build_web(batches=web.deps.settings.of(BatchSettings), pools=pools)
    runner = make_runner(caching)
    asked = [line(str(number), temperature=0) for number in range(4)]
    batch_id = desk.submit(asked)
    look(runner, runner.read)
    assert look(runner, runner.feed) == 4
    assert sorted(job.state for job in desk.jobs(batch_id)) == ["queued", "waiting", "waiting", "waiting"]
    assert len(answer(batch_id)) == 1
    for job in desk.jobs(batch_id):
        ApiClient(caching, desk.client.key).get(f"/v1/jobs/{show_id(job.id)}")
    look(runner, runner.settle, runner.end)
    told = desk.read(batch_id)
    assert (told["status"], told["request_counts"]["completed"]) == ("completed", 4)
    bodies = [each["response"]["body"] for each in desk.results(told["output_file_id"]).values()]
    assert {body["choices"][0]["message"]["content"] for body in bodies} == {ANSWER}
    again = desk.submit([line("again", temperature=0)])
    look(runner, runner.read)
    assert look(runner, runner.feed) == 1
    assert [(job.state, job.cache, job.usd) for job in desk.jobs(again)] == [("succeeded", "hit", 0)]
    look(runner, runner.settle, runner.end)
    assert desk.read(again)["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert query("SELECT count(*) FROM ledger WHERE kind = 'compute'") == [(1,)]


def test_results_can_be_read_while_it_runs(
    desk: Desk, client: ApiClient, runner: Runner, begun: Begin, answer: Any
) -> None:
    batch_id = begun(lines(3))
    runner.feed()
    answer(batch_id, "1")
    look(runner, runner.settle)
    path = f"/v1/batches/batch_{batch_id.hex}/results"
    [result] = client.get(path).text.splitlines()
    assert '"custom_id":"1"' in result
    assert client.get(f"{path}?after=2").text == ""
    assert desk.read(batch_id)["request_counts"] == {"total": 3, "completed": 1, "failed": 0}


def test_an_unreadable_answer_holds_up_neither_the_other_lines_nor_the_end(
    desk: Desk, runner: Runner, begun: Begin, answer: Any, query: Any
) -> None:
    batch_id = begun(lines(3))
    runner.feed()
    answer(batch_id)
    [bad] = [job.id for job in desk.jobs(batch_id) if job.custom_id == "1"]
    query("""UPDATE job_texts SET tool_calls = '[{"of": "a newer release"}]' WHERE job_id = :id""", id=bad)
    look(runner, runner.settle, runner.end)
    told = desk.read(batch_id)
    assert (told["status"], told["request_counts"]) == ("completed", {"total": 3, "completed": 2, "failed": 1})
    assert desk.results(told["error_file_id"])["1"]["error"]["code"] == "payload_unreadable"


def test_answers_of_two_months_are_in_one_file(
    desk: Desk, store: Store, runner: Runner, run_out: Any, query: Any
) -> None:
    last_month = month_start(datetime.now(UTC)) - timedelta(days=1)
    batch_id, job_id = (id_at(last_month + timedelta(hours=each)) for each in (1, 2))
    with store.begin() as db:
        make_past_months(db, job_id)
    made = desk.submit(lines(2))
    query("UPDATE batches SET id = :new WHERE id = :id", new=batch_id, id=made)
    look(runner, runner.read)
    query("UPDATE batch_lines SET job_id = :id WHERE number = 1", id=job_id)
    told = run_out(batch_id)
    assert told["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert job_id in {job.id for job in desk.jobs(batch_id)}
    assert set(desk.results(told["output_file_id"])) == {"0", "1"}


def test_only_one_of_two_processes_ends_a_batch(
    desk: Desk, web: Web, runner: Runner, begun: Begin, answer: Any, monkeypatch: pytest.MonkeyPatch, query: Any
) -> None:
    batch_id = begun(lines(2))
    runner.feed()
    answer(batch_id)
    look(runner, runner.settle)
    [batch] = runner._mine
    finish = ending._end

    def overtaken(*arguments: Any) -> bool:
        monkeypatch.setattr(ending, "_end", finish)
        assert any(ending.end(web.deps, batch))
        return finish(*arguments)

    monkeypatch.setattr(ending, "_end", overtaken)
    assert not any(ending.end(web.deps, batch))
    told = desk.read(batch_id)
    assert set(desk.results(told["output_file_id"])) == {"0", "1"}
    assert query("SELECT state, count(*) FROM files WHERE purpose = 'batch_output' GROUP BY 1 ORDER BY 1") == [
        ("deleted", 1),
        ("ready", 1),
    ]


def test_a_process_that_dies_while_it_writes_leaves_half_a_file_that_no_app_sees(
    desk: Desk, runner: Runner, begun: Begin, answer: Any, monkeypatch: pytest.MonkeyPatch, query: Any
) -> None:
    batch_id = begun(lines(2))
    runner.feed()
    answer(batch_id)
    look(runner, runner.settle)
    write = FolderWriter.write

    def die_after_the_first(self: Any, data: bytes) -> None:
        monkeypatch.setattr(FolderWriter, "write", die)
        write(self, data)

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(ending._ResultFile, "abandon", leave)
        monkeypatch.setattr(FolderWriter, "write", die_after_the_first)
        with pytest.raises(Died):
            runner.end()
    monkeypatch.setattr(FolderWriter, "write", write)
    assert desk.read(batch_id)["status"] == "finalizing"
    assert desk.client.get("/v1/files?purpose=batch_output").get_json()["data"] == []
    assert query("SELECT state FROM files WHERE purpose = 'batch_output'") == [("uploading",)]

    assert look(runner, runner.end) == 1
    told = desk.read(batch_id)
    assert (told["status"], set(desk.results(told["output_file_id"]))) == ("completed", {"0", "1"})


def test_a_process_that_dies_before_the_end_is_noted_leaves_files_that_no_app_sees(
    desk: Desk, runner: Runner, begun: Begin, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = begun([line("a"), line("b", temperature=9)])
    runner.feed()
    answer(batch_id)
    look(runner, runner.settle)

    def die(*_: object, **__: object) -> bool:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(ending._ResultFile, "abandon", leave)
        patch.setattr(batches, "end", die)
        with pytest.raises(Died):
            runner.end()
    assert desk.client.get("/v1/files?purpose=batch_output").get_json()["data"] == []
    assert look(runner, runner.end) == 1
    told = desk.read(batch_id)
    assert set(desk.results(told["output_file_id"])) == {"a"}
    assert set(desk.results(told["error_file_id"])) == {"b"}
    assert len(desk.client.get("/v1/files?purpose=batch_output").get_json()["data"]) == 2


def test_an_end_whose_reply_is_lost_keeps_its_files(
    desk: Desk, runner: Runner, begun: Begin, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = begun(lines(1))
    runner.feed()
    answer(batch_id)
    look(runner, runner.settle)
    finish = ending._end

    def lose_reply(*arguments: Any) -> bool:
        assert finish(*arguments)
        raise StoreUnavailable("gone")

    monkeypatch.setattr(ending, "_end", lose_reply)
    with pytest.raises(StoreUnavailable):
        runner.end()
    told = desk.read(batch_id)
    assert (told["status"], set(desk.results(told["output_file_id"]))) == ("completed", {"0"})


def test_a_storage_that_is_full_is_tried_again(
    desk: Desk, runner: Runner, begun: Begin, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = begun(lines(1))
    runner.feed()
    answer(batch_id)
    look(runner, runner.settle)

    def fail(*_: object) -> None:
        raise StorageUnavailable("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FolderWriter, "write", fail)
        with pytest.raises(StorageUnavailable):
            runner.end()
    assert desk.read(batch_id)["status"] == "finalizing"
    assert look(runner, runner.end) == 1
    assert desk.read(batch_id)["status"] == "completed"


def test_output_files_are_kept_as_long_as_the_batch_says(
    desk: Desk, client: ApiClient, begun: Begin, run_out: Any
) -> None:
    batch_id = begun(lines(1), output_expires_after={"anchor": "created_at", "seconds": 3600})
    file = client.get(f"/v1/files/{run_out(batch_id)['output_file_id']}").get_json()
    assert file["expires_at"] == file["created_at"] + 3600
