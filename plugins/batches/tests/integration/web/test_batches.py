"""Batches, by OpenAI's unchanged SDK and by hand. The sweeps of a process `batches` are run by the tests."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI
from openai.types import Batch

from api.app import build
from headrace.config import PROJECT_ROOT, PoolSettings, Settings
from headrace.domain.apps import App, Changes, Scope
from headrace.domain.ids import new_id
from headrace.domain.queues import Lane, Overflow
from headrace.store import Store, apps, keys
from headrace.store.jobs.texts import forget_old
from headrace.tables import deliveries, idempotency_keys, jobs
from plugins.batches import store as stored
from plugins.batches.running.runner import Runner
from plugins.batches.settings import BatchSettings, FileSettings
from plugins.batches.tables import batch_lines, batches
from plugins.batches.tables import files as files_table
from tests.waiting import until
from tests.web import ApiClient, Web

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
COMPLETIONS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"
ANSWER = "Because of Rayleigh scattering."
OPEN_LIMIT = 4


@pytest.fixture
def web(build_web: Callable[..., Web], settings: Settings, tmp_path: Path) -> Web:
    embed = PoolSettings(model="embeds", engine="simulator", serves="embeddings")
    return build_web(
        pools={"chat": settings.pools["chat"].model_copy(update={"model": "test-model"}), "embed": embed},
        batches=BatchSettings(files=FileSettings(store=str(tmp_path / "files")), open_per_app=OPEN_LIMIT),
    )


@pytest.fixture
def make_sdk(base_url: str) -> Iterator[Callable[[str], OpenAI]]:
    made: list[OpenAI] = []

    def make(key: str) -> OpenAI:
        made.append(OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=0, _strict_response_validation=True))
        return made[-1]

    yield make
    for sdk in made:
        sdk.close()


@pytest.fixture
def sdk(make_sdk: Callable[[str], OpenAI], key: str) -> OpenAI:
    return make_sdk(key)


@pytest.fixture
def runner(web: Web) -> Iterator[Runner]:
    """A process `batches`, whose sweeps run when a test says so."""
    deps = build(web.deps.settings)
    runner = Runner(deps)
    yield runner
    runner.close()
    deps.close()


def step(runner: Runner) -> None:
    """Run each sweep once."""
    for sweep in (runner.lease, runner.read, runner.lease, runner.feed, runner.settle, runner.end):
        sweep()


def finished(sdk: OpenAI, runner: Runner, batch_id: str) -> Batch:
    """The batch after its end."""

    def has_ended() -> bool:
        step(runner)
        return sdk.batches.retrieve(batch_id).status in ("completed", "failed", "expired", "cancelled")

    until(has_ended, "the batch has ended")
    return sdk.batches.retrieve(batch_id)


def line(number: int, prompt: str = "Why?", **changes: Any) -> dict[str, Any]:
    """A line for chat completions."""
    body = {"model": "test-model", "messages": [{"role": "user", "content": prompt}]}
    return {"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": body, **changes}


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def upload(sdk: OpenAI, *lines: dict[str, Any]) -> str:
    """The id of a file with these lines; by default, of two."""
    content = jsonl(*(lines or (line(1), line(2))))
    return sdk.files.create(file=("lines.jsonl", content), purpose="batch").id


def create(sdk: OpenAI, file_id: str, endpoint: Any = CHAT, window: Any = "24h", **more: Any) -> Batch:
    return sdk.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window=window, **more)


def results(sdk: OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """The lines of a file of results, by their custom_id."""
    if file_id is None:
        return {}
    found = [json.loads(text) for text in sdk.files.content(file_id).text.splitlines()]
    assert len({each["custom_id"] for each in found}) == len(found)
    return {each["custom_id"]: each for each in found}


def body(file_id: str, **changes: Any) -> dict[str, Any]:
    """The body of a create."""
    return {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **changes}


@pytest.mark.usefixtures("answering")
def test_a_batch_is_made_run_and_read(sdk: OpenAI, runner: Runner) -> None:
    file_id = upload(sdk, line(1), line(2, body={"model": "test-model", "messages": []}), line(3))
    made = create(sdk, file_id, metadata={"run": "7"})
    assert (made.object, made.status, made.endpoint, made.completion_window) == ("batch", "validating", CHAT, "24h")
    assert (made.input_file_id, made.metadata, made.model) == (file_id, {"run": "7"}, None)
    assert made.expires_at == made.created_at + 86_400
    assert made.request_counts is not None
    assert made.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}

    done = finished(sdk, runner, made.id)
    assert (done.status, done.model, done.errors) == ("completed", "test-model", None)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (18, 14, 32)
    assert (done.usage.input_tokens_details.cached_tokens, done.usage.output_tokens_details.reasoning_tokens) == (4, 0)
    times = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at]
    assert times == sorted(filter(None, times))
    assert done.job["usd"] == "0.000002460"  # type: ignore[attr-defined]

    answered, refused = results(sdk, done.output_file_id), results(sdk, done.error_file_id)
    assert set(answered) == {"row-1", "row-3"}
    reply = answered["row-3"]
    assert (reply["error"], reply["response"]["status_code"]) == (None, 200)
    assert reply["response"]["body"]["choices"][0]["message"]["content"] == ANSWER
    assert reply["id"] == f"batch_req_{made.id.removeprefix('batch_')}_3"
    assert set(refused) == {"row-2"}
    assert (refused["row-2"]["error"], refused["row-2"]["response"]["status_code"]) == (None, 400)
    assert refused["row-2"]["response"]["body"]["error"]["param"] == "messages"
    assert sdk.batches.retrieve(made.id) == done
    assert [file.purpose for file in sdk.files.list(purpose="batch_output")] == ["batch_output"] * 2


def test_every_field_of_openai_is_there_with_null_for_what_is_absent(sdk: OpenAI) -> None:
    batch_id = create(sdk, upload(sdk)).id
    told = json.loads(sdk.batches.with_raw_response.retrieve(batch_id).text)
    assert isinstance(told, dict)
    assert set(Batch.model_fields) | {"job"} == set(told)
    absent = {name for name, value in told.items() if value is None}
    assert absent == {
        *("cancelled_at", "cancelling_at", "completed_at", "error_file_id", "errors", "expired_at", "failed_at"),
        *("finalizing_at", "in_progress_at", "metadata", "model", "output_file_id"),
    }
    assert told["job"] == {"overflow": "never", "usd": "0.000000000", "not_before": None, "retry_of": None}


@pytest.mark.parametrize(
    ("endpoint", "asked", "text_of"),
    [
        (RESPONSES, {"input": "Why?"}, lambda body: body["output"][0]["content"][0]["text"]),
        (CHAT, {"messages": [{"role": "user", "content": "Why?"}]}, lambda b: b["choices"][0]["message"]["content"]),
        (COMPLETIONS, {"prompt": "Why?", "echo": True}, lambda body: body["choices"][0]["text"].removeprefix("Why?")),
        (EMBEDDINGS, {"input": ["a", "b"]}, lambda body: ANSWER if len(body["data"]) == 2 else ""),
    ],
    ids=["responses", "chat", "completions", "embeddings"],
)
@pytest.mark.usefixtures("answering")
def test_each_endpoint_answers_as_its_single_call(
    sdk: OpenAI, runner: Runner, endpoint: Any, asked: dict[str, Any], text_of: Callable[[Any], str]
) -> None:
    done = finished(sdk, runner, create(sdk, upload(sdk, line(1, url=endpoint, body=asked)), endpoint).id)
    assert done.status == "completed", done.errors
    (found,) = results(sdk, done.output_file_id).values()
    assert text_of(found["response"]["body"]) == ANSWER
    assert found["response"]["body"]["object"] in ("response", "chat.completion", "text_completion", "list")


def test_a_file_that_is_no_batch_fails_it_with_all_that_is_wrong(sdk: OpenAI, runner: Runner) -> None:
    made = create(sdk, upload(sdk, line(1), line(1), line(2, url=RESPONSES)))
    done = finished(sdk, runner, made.id)
    assert (done.status, done.output_file_id, done.error_file_id) == ("failed", None, None)
    assert done.failed_at is not None
    assert done.errors is not None
    assert done.errors.object == "list"
    assert done.errors.data is not None
    assert [(error.code, error.line, error.param) for error in done.errors.data] == [
        ("duplicate_custom_id", 2, "custom_id"),
        ("url_mismatch", 3, "url"),
    ]


def test_pages_follow_each_other_the_newest_first(sdk: OpenAI, client: ApiClient) -> None:
    file_id = upload(sdk)
    ids = [create(sdk, file_id).id for _ in range(3)]
    assert [each.id for each in sdk.batches.list(limit=2)] == ids[::-1]
    page = client.get("/v1/batches?limit=2").json
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", ids[2], ids[1], True)
    page = client.get(f"/v1/batches?limit=2&after={ids[1]}").json
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[0], False)


@pytest.mark.parametrize(
    ("query", "param"),
    [("after=batch_1", "after"), ("limit=0", "limit"), ("limit=101", "limit"), ("order=asc", "order")],
)
def test_a_wrong_page_names_what_is_wrong(client: ApiClient, query: str, param: str) -> None:
    reply = client.get(f"/v1/batches?{query}")
    assert (reply.status_code, reply.json["error"]["param"]) == (400, param)


CALLS = [("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/results")]


def test_another_apps_batch_is_not_found_and_answered_as_none(
    sdk: OpenAI, client_of: Any, make_key: Callable[[str], str]
) -> None:
    made, other = create(sdk, upload(sdk)), client_of(make_key("other"))
    for batch_id in (made.id, f"batch_{new_id().hex}", "batch_1", f"file-{new_id().hex}"):
        for method, path in CALLS:
            reply = other.open(f"/v1/batches/{batch_id}{path}", method=method)
            assert (reply.status_code, reply.json["error"]["code"]) == (404, "not_found"), (batch_id, path)
            assert reply.json["error"]["message"] == f"No batch with id '{batch_id}'."
    assert other.get("/v1/batches").json["data"] == []
    assert other.get(f"/v1/batches?after={made.id}").json["data"] == []
    assert sdk.batches.retrieve(made.id) == made


def test_a_key_does_what_its_scopes_say(
    sdk: OpenAI, store: Store, app: App, settings: Settings, client_of: Any
) -> None:
    file_id = upload(sdk)
    batch_id = create(sdk, file_id).id
    with store.begin() as db:
        pepper = settings.pepper.get_secret_value()
        reader, submitter = (
            client_of(keys.make(db, app.id, pepper, scopes=(scope,))) for scope in (Scope.READ, Scope.SUBMIT)
        )
    for client, allowed in ((reader, "GET"), (submitter, "POST")):
        for method, path in [("POST", ""), ("GET", ""), *((m, f"/{batch_id}{p}") for m, p in CALLS)]:
            reply = client.open(f"/v1/batches{path}", method=method, json=body(file_id) if method == "POST" else None)
            assert (reply.status_code == 403) == (method != allowed), (path, reply.text)
            if method != allowed:
                assert reply.json["error"]["code"] == "scope_not_allowed"


def test_an_app_whose_lanes_have_no_batch_makes_none(
    make_sdk: Callable[[str], OpenAI], make_key: Callable[[str], str], store: Store
) -> None:
    key = make_key("narrow")
    with store.begin() as db:
        apps.set_limits(db, "narrow", Changes(lanes=frozenset({Lane.HIGH, Lane.LOW})))
    narrow = make_sdk(key)
    file_id = upload(narrow)
    for call in (
        lambda: create(narrow, file_id),
        lambda: narrow.post(f"/batches/{_ended(store, 'narrow')}/retry", cast_to=object),
    ):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            call()
        assert refused.value.code == "tier_not_allowed"
        assert "'batch'" in refused.value.message


def _ended(store: Store, app: str) -> str:
    """A batch of the app that was made while it had all lanes, and was cancelled."""
    with store.begin() as db:
        made = stored.create(
            db,
            apps.find_app(db, app).id,
            window_s=60,
            most_open=1,
            endpoint=CHAT,
            input_file_id=new_id(),
            completion_window="1m",
            overflow=Overflow.NEVER,
            state="cancelled",
        )
    return f"batch_{made.id.hex}"


def test_an_app_has_no_more_open_batches_than_it_may(sdk: OpenAI, runner: Runner) -> None:
    file_id = upload(sdk)
    ids = [create(sdk, file_id).id for _ in range(OPEN_LIMIT)]
    with pytest.raises(openai.BadRequestError) as refused:
        create(sdk, file_id)
    assert refused.value.code == "too_many_batches"
    assert str(OPEN_LIMIT) in refused.value.message
    sdk.batches.cancel(ids[0])
    finished(sdk, runner, ids[0])
    assert create(sdk, file_id).status == "validating"


def test_creates_at_once_see_each_other(sdk: OpenAI, client_of: Any, key: str) -> None:
    file_id, statuses = upload(sdk), list[int]()

    def send() -> None:
        statuses.append(client_of(key).post("/v1/batches", json=body(file_id)).status_code)

    threads = [threading.Thread(target=send) for _ in range(2 * OPEN_LIMIT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * OPEN_LIMIT + [400] * OPEN_LIMIT


@pytest.mark.parametrize(("window", "seconds"), [("90m", 5400), ("1h38min", 5880), ("30d", 30 * 86_400), ("60s", 60)])
def test_any_window_from_a_minute_to_a_month(sdk: OpenAI, window: str, seconds: int) -> None:
    made = create(sdk, upload(sdk), window=window)
    assert made.expires_at == made.created_at + seconds
    assert made.completion_window == window


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"completion_window": "24"}, "completion_window", "invalid_value"),
        ({"completion_window": "59s"}, "completion_window", "invalid_value"),
        ({"completion_window": "31d"}, "completion_window", "invalid_value"),
        ({"completion_window": "1h" * 17}, "completion_window", "invalid_value"),
        ({"completion_window": 86_400}, "completion_window", "invalid_value"),
        ({"completion_window": None}, "completion_window", "invalid_value"),
        ({"endpoint": "/v1/jobs"}, "endpoint", "invalid_value"),
        ({"endpoint": "/v1/moderations"}, "endpoint", "invalid_value"),
        ({"metadata": {f"key-{number}": "x" for number in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": {"k" * 65: "x"}}, f"metadata.{'k' * 65}", "invalid_value"),
        ({"metadata": {"": "x"}}, "metadata.", "invalid_value"),
        ({"metadata": {"key": "v" * 513}}, "metadata.key", "invalid_value"),
        ({"metadata": {"key": 7}}, "metadata.key", "invalid_value"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3599}}, "output_expires_after.seconds", None),
        ({"output_expires_after": {"anchor": "ended_at", "seconds": 3600}}, "output_expires_after.anchor", None),
        ({"output_expires_after": {"seconds": 3600}}, "output_expires_after.anchor", "missing_parameter"),
        ({"job": {"overflow": "maybe"}}, "job.overflow", "invalid_value"),
        ({"job": {"webhook": "ftp://example.com"}}, "job.webhook", "webhook_url_not_allowed"),
        ({"job": {"webhook": "http://example.com/hook"}}, "job.webhook", "webhook_url_not_allowed"),
        ({"job": {"webhook": "https://127.0.0.1/hook"}}, "job.webhook", "webhook_url_not_allowed"),
        ({"job": {"webhook": "https://u:p@example.com"}}, "job.webhook", "webhook_url_not_allowed"),
        ({"job": {"not_before": "2030-01-01"}}, "job.not_before", "invalid_value"),
        ({"job": {"not_before": "9999-12-31T23:00:00Z"}}, "job.not_before", "invalid_value"),
        ({"job": {"lane": "high"}}, "job.lane", "unknown_parameter"),
        ({"colour": "blue"}, "colour", "unknown_parameter"),
        ({"input_file_id": "file-1"}, "input_file_id", "file_not_found"),
        ({"input_file_id": f"file-{'0' * 32}"}, "input_file_id", "file_not_found"),
        ({"input_file_id": "x" * 65}, "input_file_id", "invalid_value"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
def test_a_wrong_request_names_what_is_wrong_and_makes_nothing(
    build_web: Callable[..., Web],
    web: Web,
    client_of: Any,
    key: str,
    changes: dict[str, Any],
    param: str,
    code: str | None,
) -> None:
    webhooks = web.deps.settings.webhooks.model_copy(update={"allow_private": False})
    client = client_of(key, build_web(batches=web.deps.settings.of(BatchSettings), webhooks=webhooks))
    file_id = _uploaded(client)
    reply = client.post("/v1/batches", json=body(file_id, **changes))
    error = reply.json["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, code or "invalid_value", param), error
    assert client.get("/v1/batches").json["data"] == []


def _uploaded(client: ApiClient, content: bytes | None = None) -> str:
    form = {"purpose": "batch", "file": (BytesIO(content or jsonl(line(1))), "lines.jsonl")}
    file_id: str = client.post("/v1/files", data=form).json["id"]
    return file_id


@pytest.mark.parametrize("name", ["input_file_id", "endpoint", "completion_window"])
def test_what_is_left_out_is_named(client: ApiClient, name: str) -> None:
    asked = {each: value for each, value in body(f"file-{'0' * 32}").items() if each != name}
    reply = client.post("/v1/batches", json=asked)
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "missing_parameter")
    assert reply.json["error"]["param"] == name


def test_only_an_own_file_of_lines_that_is_there_makes_a_batch(
    sdk: OpenAI, make_sdk: Callable[[str], OpenAI], make_key: Callable[[str], str], store: Store
) -> None:
    other, deleted, expired, output = make_sdk(make_key("other")), *(upload(sdk) for _ in range(3))
    theirs = upload(other)
    sdk.files.delete(deleted)
    with store.begin() as db:
        for file_id, values in ((expired, {"expires_at": sa.func.now()}), (output, {"purpose": "batch_output"})):
            chosen = files_table.c.id == sa.text(f"'{file_id.removeprefix('file-')}'")
            db.execute(sa.update(files_table).where(chosen).values(values))
    for file_id, code in (
        *((each, "file_not_found") for each in (theirs, deleted, expired)),
        (output, "invalid_value"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            create(sdk, file_id)
        assert (refused.value.code, refused.value.param) == (code, "input_file_id")


def test_without_a_storage_no_batch_is_made(build_web: Callable[..., Web], key: str) -> None:
    reply = ApiClient(build_web(batches=BatchSettings(files=FileSettings())), key).post(
        "/v1/batches", json=body(f"file-{'0' * 32}")
    )
    assert (reply.status_code, reply.json["error"]["code"]) == (503, "invalid_configuration")


@pytest.mark.usefixtures("answering")
def test_a_delayed_start_moves_the_window(sdk: OpenAI, runner: Runner, store: Store) -> None:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    made = create(sdk, upload(sdk), window="2h", extra_body={"job": {"not_before": start.timestamp()}})
    assert made.expires_at == start.timestamp() + 7200
    assert made.job["not_before"] == start.isoformat().replace("+00:00", "Z")  # type: ignore[attr-defined]
    for _ in range(3):
        step(runner)
    found = sdk.batches.retrieve(made.id)
    assert found.request_counts is not None
    assert (found.status, found.request_counts.total) == ("in_progress", 2)
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(jobs)) == 0
        db.execute(sa.update(batches).values(not_before=sa.func.now()))
    assert finished(sdk, runner, made.id).status == "completed"


def test_a_start_in_the_past_is_now(sdk: OpenAI) -> None:
    made = create(sdk, upload(sdk), extra_body={"job": {"not_before": 1_700_000_000}})
    assert made.expires_at == made.created_at + 86_400


@pytest.mark.usefixtures("answering")
def test_the_files_of_results_are_kept_as_long_as_the_batch_says(sdk: OpenAI, runner: Runner) -> None:
    after: Any = {"anchor": "created_at", "seconds": 7200}
    done = finished(sdk, runner, create(sdk, upload(sdk), output_expires_after=after).id)
    assert done.output_file_id is not None
    file = sdk.files.retrieve(done.output_file_id)
    assert file.expires_at == file.created_at + 7200
    assert file.filename == f"{done.id}_output.jsonl"


def test_a_cancel_is_safe_to_repeat_and_lines_that_never_ran_say_so(sdk: OpenAI, runner: Runner) -> None:
    made = create(sdk, upload(sdk), extra_body={"job": {"not_before": datetime.now(UTC).timestamp() + 3600}})
    step(runner)
    first = sdk.batches.cancel(made.id)
    assert (first.status, first.cancelled_at) == ("cancelling", None)
    assert first.cancelling_at is not None
    assert sdk.batches.cancel(made.id) == first
    done = finished(sdk, runner, made.id)
    assert (done.status, done.output_file_id, done.completed_at) == ("cancelled", None, None)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 2, "completed": 0, "failed": 2}
    found = results(sdk, done.error_file_id)
    assert {each["error"]["code"] for each in found.values()} == {"batch_cancelled"}
    assert {each["response"] for each in found.values()} == {None}
    assert sdk.batches.cancel(made.id) == done


def test_a_batch_that_is_cancelled_before_its_file_is_read_has_no_lines(sdk: OpenAI, runner: Runner) -> None:
    made = create(sdk, upload(sdk))
    sdk.batches.cancel(made.id)
    done = finished(sdk, runner, made.id)
    assert (done.status, done.output_file_id, done.error_file_id) == ("cancelled", None, None)
    assert done.request_counts is not None
    assert done.request_counts.total == 0


@pytest.mark.usefixtures("answering")
def test_a_cancel_of_an_ended_batch_changes_nothing(sdk: OpenAI, runner: Runner) -> None:
    done = finished(sdk, runner, create(sdk, upload(sdk)).id)
    assert sdk.batches.cancel(done.id) == done
    assert done.status == "completed"


def test_what_has_not_started_when_the_window_ends_expires(
    sdk: OpenAI, runner: Runner, store: Store, finish: Callable[..., None]
) -> None:
    made = create(sdk, upload(sdk))
    step(runner)
    first, second = _jobs(store)
    finish(first)
    with store.begin() as db:
        # The second one as a sweep of `control` leaves it.
        ended = {"state": "expired", "error_code": "expired", "ended_at": sa.func.now()}
        db.execute(sa.update(jobs).where(jobs.c.id == second).values(ended))
        db.execute(sa.update(batches).values(expires_at=sa.func.now()))
    done = finished(sdk, runner, made.id)
    assert (done.status, done.completed_at) == ("expired", None)
    assert done.expired_at is not None
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}
    assert set(results(sdk, done.output_file_id)) == {"row-1"}
    assert results(sdk, done.error_file_id)["row-2"]["error"]["code"] == "batch_expired"


def _jobs(store: Store) -> list[Any]:
    """The ids of the lines' jobs, in the order of the file."""
    with store.begin() as db:
        return list(db.scalars(sa.select(batch_lines.c.job_id).order_by(batch_lines.c.batch_id, batch_lines.c.number)))


def retried(client: ApiClient, batch_id: str, **options: Any) -> Any:
    return client.post(f"/v1/batches/{batch_id}/retry", **options)


def test_a_retry_runs_what_has_no_answer(
    sdk: OpenAI, client: ApiClient, runner: Runner, store: Store, finish: Callable[..., None]
) -> None:
    given = [line(1), line(2, body={"model": "test-model", "messages": []}), line(3)]
    after: Any = {"anchor": "created_at", "seconds": 7200}
    made = create(sdk, upload(sdk, *given), metadata={"run": "7"}, window="2h", output_expires_after=after)
    step(runner)
    finish(_jobs(store)[0])
    step(runner)
    reply = retried(client, made.id)
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "batch_not_ended")
    sdk.batches.cancel(made.id)
    done = finished(sdk, runner, made.id)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 3, "completed": 1, "failed": 2}

    again = retried(client, made.id).json
    assert (again["status"], again["job"]["retry_of"], again["input_file_id"]) == (
        "validating",
        made.id,
        made.input_file_id,
    )
    assert (again["completion_window"], again["metadata"], again["model"]) == ("2h", {"run": "7"}, "test-model")
    assert retried(client, made.id, json={"completion_window": "3d"}).json["expires_at"] > again["expires_at"]

    until(lambda: step(runner) or len([each for each in _jobs(store) if each]) == 4)
    for job_id in _jobs(store):
        with store.begin() as db:
            state = db.scalar(sa.select(jobs.c.state).where(jobs.c.id == job_id))
        if state == "queued":
            finish(job_id)
    ended = finished(sdk, runner, again["id"])
    assert ended.request_counts is not None
    assert ended.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}
    assert set(results(sdk, ended.output_file_id)) == {"row-3"}
    assert set(results(sdk, ended.error_file_id)) == {"row-2"}
    assert ended.output_file_id is not None
    file = sdk.files.retrieve(ended.output_file_id)
    assert file.expires_at == file.created_at + 7200


@pytest.mark.usefixtures("answering")
def test_there_is_nothing_to_retry_where_all_lines_have_answers_or_none_was_read(
    sdk: OpenAI, client: ApiClient, runner: Runner
) -> None:
    done = finished(sdk, runner, create(sdk, upload(sdk)).id)
    failed = finished(sdk, runner, create(sdk, upload(sdk, line(1), line(1))).id)
    for batch in (done, failed):
        reply = retried(client, batch.id, json={})
        assert (reply.status_code, reply.json["error"]["code"]) == (400, "nothing_to_retry")
    assert len(client.get("/v1/batches").json["data"]) == 2


def test_a_retry_with_a_wrong_window_names_it(client: ApiClient) -> None:
    reply = retried(client, f"batch_{'0' * 32}", json={"completion_window": "soon"})
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "completion_window")


def test_the_results_so_far_can_be_read_while_it_runs(
    sdk: OpenAI, client: ApiClient, runner: Runner, store: Store, finish: Callable[..., None]
) -> None:
    made = create(sdk, upload(sdk, line(1), line(2, body={"model": "test-model"}), line(3), line(4)))
    path = f"/v1/batches/{made.id}/results"
    assert client.get(path).text == ""
    step(runner)
    ids = _jobs(store)
    for place in (0, 3):
        finish(ids[place])
    step(runner)

    def read(query: str = "") -> list[dict[str, Any]]:
        reply = client.get(f"{path}{query}")
        assert (reply.status_code, reply.mimetype) == (200, "application/jsonl")
        return [json.loads(text) for text in reply.text.splitlines()]

    found = read()
    assert [each["custom_id"] for each in found] == ["row-1", "row-2", "row-4"]
    assert [each["response"]["status_code"] for each in found] == [200, 400, 200]
    number = found[1]["id"].rpartition("_")[2]
    assert read(f"?after={number}") == found[2:]
    assert client.get(f"{path}?after=-1").json["error"]["param"] == "after"
    finish(ids[2])
    done = finished(sdk, runner, made.id)
    whole = read()
    assert len(whole) == 4
    answered = list(results(sdk, done.output_file_id).values())
    refused = list(results(sdk, done.error_file_id).values())
    assert sorted(answered + refused, key=lambda each: str(each["id"])) == whole
    by_sdk = sdk.get(f"/batches/{made.id}/results", cast_to=str)
    assert [json.loads(text) for text in by_sdk.splitlines()] == whole


@pytest.mark.usefixtures("answering")
def test_the_results_of_more_lines_than_a_page_come_in_order(
    sdk: OpenAI, client: ApiClient, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.batches.routes.batch_results.PAGE", 3)
    done = finished(sdk, runner, create(sdk, upload(sdk, *(line(number) for number in range(8)))).id)
    told = client.get(f"/v1/batches/{done.id}/results").text.splitlines()
    assert [json.loads(text)["custom_id"] for text in told] == [f"row-{number}" for number in range(8)]


@pytest.mark.usefixtures("answering")
def test_an_erased_job_leaves_its_line_without_an_answer(sdk: OpenAI, client: ApiClient, runner: Runner) -> None:
    done = finished(sdk, runner, create(sdk, upload(sdk)).id)
    path = f"/v1/batches/{done.id}/results"
    first = json.loads(client.get(path).text.splitlines()[0])
    assert client.delete(f"/v1/jobs/{first['response']['body']['id']}").status_code == 200
    told = json.loads(client.get(path).text.splitlines()[0])
    assert (told["response"], told["error"]["code"]) == (None, "erased")


def test_an_erased_job_takes_the_request_that_its_line_kept_for_a_retry(
    sdk: OpenAI, client: ApiClient, runner: Runner, store: Store
) -> None:
    made = create(sdk, upload(sdk))
    step(runner)
    for job_id in _jobs(store):
        assert client.post(f"/v1/jobs/job_{job_id.hex}/cancel").status_code == 200
    finished(sdk, runner, made.id)
    assert client.delete(f"/v1/jobs/job_{_jobs(store)[0].hex}").status_code == 200
    with store.begin() as db:
        bodies = db.execute(sa.select(batch_lines.c.body, batch_lines.c.prefix).order_by(batch_lines.c.number)).all()
    assert bodies[0] == ("{}", "")
    assert "Why?" in bodies[1].body, "the other line is as it was"


def test_answers_are_kept_until_they_are_in_the_files(
    sdk: OpenAI, runner: Runner, store: Store, finish: Callable[..., None]
) -> None:
    """A batch may run for longer than texts are kept."""
    made = create(sdk, upload(sdk), window="30d")
    step(runner)
    first, second = _jobs(store)
    finish(first)

    def forget() -> int:
        with store.begin() as db:
            db.execute(sa.update(jobs).where(jobs.c.id == first).values(ended_at=sa.func.now() - timedelta(days=3)))
            return forget_old(db, -1)

    assert forget() == 0
    finish(second)
    done = finished(sdk, runner, made.id)
    assert len(results(sdk, done.output_file_id)) == 2
    assert forget() == 2


def test_the_results_of_an_old_batch_are_not_found_and_those_of_a_failed_one_are_none(
    sdk: OpenAI, client: ApiClient, runner: Runner, store: Store
) -> None:
    failed = finished(sdk, runner, create(sdk, upload(sdk, line(1), line(1))).id)
    assert client.get(f"/v1/batches/{failed.id}/results").data == b""
    old = create(sdk, upload(sdk))
    sdk.batches.cancel(old.id)
    finished(sdk, runner, old.id)
    with store.begin() as db:
        assert stored.hide_lines(db, -1) == 2, "the failed one counts in the app's storage until then, too"
    reply = client.get(f"/v1/batches/{old.id}/results")
    assert (reply.status_code, reply.json["error"]["code"]) == (404, "not_found")
    assert "deleted" in reply.json["error"]["message"]
    assert retried(client, old.id).json["error"]["code"] == "nothing_to_retry"


def test_an_end_is_announced_to_the_webhook(sdk: OpenAI, runner: Runner, store: Store, app: App) -> None:
    hook = "https://example.com/hook"
    made = create(sdk, upload(sdk), extra_body={"job": {"webhook": hook}})
    sdk.batches.cancel(made.id)
    finished(sdk, runner, made.id)
    with store.begin() as db:
        rows = db.execute(sa.select(deliveries.c.event, deliveries.c.url, deliveries.c.data, deliveries.c.app_id))
        assert rows.all() == [("batch.cancelled", hook, {"id": made.id}, app.id)]


@pytest.mark.usefixtures("answering")
def test_the_pages_program_finds_the_answer_to_each_line(
    base_url: str, key: str, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What ends no line of JSON, and is written as it is.
    answer = "One\u2028two\x85three"
    monkeypatch.setattr("tests.integration.api.conftest.PIECES", (answer,))
    page = (PROJECT_ROOT / "docs/batches.md").read_text(encoding="utf-8")
    blocks: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "lines.jsonl").write_text(next(text for kind, text in blocks if kind == "json"), encoding="utf-8")
    program = next(text for kind, text in blocks if kind == "python")
    for there, here in (("http://127.0.0.1:8000", base_url), ("hr-...", key), ("(10)", "(0.1)")):
        assert there in program
        program = program.replace(there, here)
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as running:
        until(lambda: step(runner) or running.poll() is not None, "the program ends")
        said = running.communicate()[0].rstrip("\n").split("\n")
    assert running.returncode == 0
    assert said[0].startswith("completed BatchRequestCounts(completed=2, failed=0, total=2)")
    assert said[1:] == [f"row-1 {answer}", f"row-2 {answer}"]


# ---- Idempotency-Key


def repeated(client: ApiClient, asked: dict[str, Any], key: str = "once", path: str = "/v1/batches") -> Any:
    return client.post(path, json=asked, headers={"Idempotency-Key": key})


def test_a_create_that_is_sent_again_makes_no_second_batch(
    sdk: OpenAI, client: ApiClient, runner: Runner, store: Store
) -> None:
    file_id = upload(sdk)
    first = repeated(client, body(file_id))
    assert first.status_code == 200
    assert "Idempotent-Replayed" not in first.headers
    again = repeated(client, body(file_id))
    assert (again.status_code, again.json, again.headers["Idempotent-Replayed"]) == (200, first.json, "true")
    # Also where a new one would be refused now: the batch as it stands is the reply.
    for _ in range(OPEN_LIMIT - 1):
        create(sdk, file_id)
    sdk.files.delete(file_id)
    sdk.batches.cancel(first.json["id"])
    again = repeated(client, body(file_id))
    assert (again.status_code, again.json["id"], again.json["status"]) == (200, first.json["id"], "cancelling")
    assert repeated(client, body(file_id), "another").status_code == 400
    assert len(client.get("/v1/batches").json["data"]) == OPEN_LIMIT
    with store.begin() as db:
        db.execute(sa.update(idempotency_keys).values(expires_at=sa.func.now()))
    sdk.batches.cancel(client.get("/v1/batches").json["data"][0]["id"])
    until(lambda: step(runner) or client.get("/v1/batches").json["data"][0]["status"] == "cancelled")
    fresh = upload(sdk)
    assert repeated(client, body(fresh)).json["id"] != first.json["id"], "a day later, the key is free"


def test_a_key_of_another_request_is_refused(sdk: OpenAI, client: ApiClient) -> None:
    file_id = upload(sdk)
    made = repeated(client, body(file_id)).json
    for reply in (
        repeated(client, body(file_id, completion_window="25h")),
        repeated(client, {"prompt": "Why?"}, path="/v1/jobs"),
        repeated(client, {}, path=f"/v1/batches/{made['id']}/retry"),
    ):
        error = reply.json["error"]
        assert (reply.status_code, error["code"], error["param"]) == (422, "idempotency_key_reused", "Idempotency-Key")
    assert repeated(client, {"prompt": "Why?"}, "a job's", "/v1/jobs").status_code == 202
    assert repeated(client, body(file_id), "a job's").status_code == 422
    assert repeated(client, body(file_id), "").status_code == 400
    assert len(client.get("/v1/batches").json["data"]) == 1


def test_a_refused_create_leaves_its_key_free(sdk: OpenAI, client: ApiClient) -> None:
    file_id = f"file-{'0' * 32}"
    assert repeated(client, body(file_id)).status_code == 400
    assert repeated(client, body(upload(sdk))).status_code == 200


def test_a_key_is_an_apps_own(
    sdk: OpenAI, client: ApiClient, make_sdk: Callable[[str], OpenAI], make_key: Callable[[str], str], client_of: Any
) -> None:
    key = make_key("other")
    other, theirs = client_of(key), upload(make_sdk(key))
    made = [repeated(client, body(upload(sdk))), repeated(other, body(theirs))]
    assert [reply.status_code for reply in made] == [200, 200]
    assert made[0].json["id"] != made[1].json["id"]


def test_of_creates_at_once_with_one_key_one_makes_a_batch(
    sdk: OpenAI, client_of: Any, build_web: Callable[..., Web], web: Web, key: str
) -> None:
    """As after a time-out: at two processes, while the first is under way."""
    file_id, replies = upload(sdk), list[Any]()
    other = build_web(batches=web.deps.settings.of(BatchSettings), pools=web.deps.settings.pools)

    def send(at: Web) -> None:
        replies.append(repeated(client_of(key, at), body(file_id)))

    threads = [threading.Thread(target=send, args=(at,)) for at in (web, other) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json["id"] for reply in replies}) == 1
    assert sum("Idempotent-Replayed" not in reply.headers for reply in replies) == 1
    assert len(sdk.batches.list().data) == 1


def test_a_retry_that_is_sent_again_makes_no_second_batch(sdk: OpenAI, client: ApiClient, runner: Runner) -> None:
    later = datetime.now(UTC).timestamp() + 3600
    made = create(sdk, upload(sdk), extra_body={"job": {"not_before": later}})
    step(runner)
    sdk.batches.cancel(made.id)
    finished(sdk, runner, made.id)
    replies = [retried(client, made.id, headers={"Idempotency-Key": "again"}) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert replies[0].json["id"] == replies[1].json["id"]
    assert replies[1].headers["Idempotent-Replayed"] == "true"
    assert len(client.get("/v1/batches").json["data"]) == 2
