"""The file of a batch becomes lines in Postgres, or errors that say what is wrong with it, and where."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.config import PoolSettings, Settings
from headrace.config.rules import RuleSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.queues import Overflow
from headrace.store import Store, apps
from plugins.batches import store as batches
from plugins.batches.domain import Batch, BatchError, BatchState, NewLine, storage_key
from plugins.batches.part import storage_of
from plugins.batches.running import reading
from plugins.batches.running.reading import beginning, read
from plugins.batches.settings import BatchSettings, FileSettings
from plugins.batches.storage.base import StorageUnavailable
from plugins.batches.store import PREFIX_CHARS, files
from tests.web import Web

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
BODY_LIMIT = 4096
LINES_LIMIT = 120
#: Lines of a transaction: files of the tests have several.
CHUNK = 7


@pytest.fixture
def web(build_web: Callable[..., Web], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    monkeypatch.setattr(reading, "CHUNK", CHUNK)
    pools = {
        "chat": PoolSettings(model="chats", engine="simulator", served_names=("org/chats",)),
        "embed": PoolSettings(model="embeds", engine="simulator", serves="embeddings"),
    }
    rules = {"all": RuleSettings(pools=("chat",))}
    return build_web(
        pools=pools,
        rules=rules,
        body_limit_bytes=BODY_LIMIT,
        batches=BatchSettings(files=FileSettings(store=str(tmp_path)), lines_limit=LINES_LIMIT),
    )


Make = Callable[..., Batch]


@pytest.fixture
def make(web: Web, app: App) -> Make:
    """Makes a batch of a file with this content, which is not read yet."""

    def make(content: bytes, endpoint: str = CHAT, app: App = app) -> Batch:
        return _made(web, app, content, endpoint)

    return make


def _made(web: Web, app: App, content: bytes, endpoint: str) -> Batch:
    with web.deps.store.begin() as db:
        file_id = files.begin(db, app.id, "batch", "lines.jsonl")
    writer = storage_of(web.deps).writer(storage_key(app.id, file_id))
    writer.write(content)
    writer.finish()
    with web.deps.store.begin() as db:
        files.finish(db, file_id, "batch", len(content), None)
        return batches.create(
            db,
            app.id,
            window_s=3600,
            most_open=99,
            endpoint=endpoint,
            input_file_id=file_id,
            completion_window="1h",
            overflow=Overflow.NEVER,
        )


Read = Callable[..., Batch]


@pytest.fixture
def read_it(web: Web) -> Read:
    """Reads the file of a batch as a process does that has just leased it; returns the batch after it."""

    def read_it(batch: Batch) -> Batch:
        runner_id = new_id()
        _lease(web.deps.store, runner_id)
        sum(read(web.deps, runner_id, batch))
        return _again(web.deps.store, batch)

    return read_it


def _lease(store: Store, runner_id: UUID) -> None:
    """Lease all batches, as if their last process had died a while ago."""
    with store.begin() as db:
        db.execute(sa.text("UPDATE batches SET lease_until = now() - interval '1 s'"))
        batches.lease(db, runner_id, 60)


def _again(store: Store, batch: Batch) -> Batch:
    with store.begin() as db:
        return batches.find(db, batch.app_id, batch.id)


def line(number: int, text: str = "Hi", **changes: Any) -> dict[str, Any]:
    """A line as OpenAI's documentation has it."""
    body = {"model": "chats", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": body, **changes}


def embedding(number: int, given: Any) -> dict[str, Any]:
    return line(number, url=EMBEDDINGS, body={"model": "embeds", "input": given})


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def rows(query: Callable[..., Any], batch: Batch) -> list[tuple[int, str, str, dict[str, Any]]]:
    """Number, custom_id, state and body of the lines in Postgres."""
    found = query(
        "SELECT number, custom_id, state, body FROM batch_lines WHERE batch_id = :id ORDER BY number", id=batch.id
    )
    return [(number, custom_id, state, json.loads(body)) for number, custom_id, state, body in found]


def test_each_line_becomes_a_row_with_its_request(make: Make, read_it: Read, query: Any) -> None:
    given = [line(number, f"Say {number} ✓") for number in range(1, 4 * CHUNK)]
    found = read_it(make(jsonl(*given)))
    assert (found.state, found.total, found.model, found.errors) == (BatchState.IN_PROGRESS, len(given), "chats", ())
    assert rows(query, found) == [(at, each["custom_id"], "waiting", each["body"]) for at, each in enumerate(given, 1)]


def test_a_chunk_ends_after_so_many_bytes(
    make: Make, read_it: Read, monkeypatch: pytest.MonkeyPatch, query: Any
) -> None:
    sizes = list[int]()
    put = batches.put_lines

    def counted(db: Any, batch_id: UUID, runner_id: UUID, lines: Sequence[Any]) -> bool:
        sizes.append(len(lines))
        return put(db, batch_id, runner_id, lines)

    monkeypatch.setattr(batches, "put_lines", counted)
    monkeypatch.setattr(reading, "CHUNK_BYTES", 1500)
    found = read_it(make(jsonl(*(line(number, "x" * 400) for number in range(5)))))
    assert sizes == [3, 2]
    assert len(rows(query, found)) == 5


def test_what_vllm_run_batch_takes_is_taken(make: Make, read_it: Read, query: Any) -> None:
    # As the example in vLLM's repository, openai_example_batch.jsonl, has it.
    said = '"messages": [{"role": "system", "content": "You are a helpful assistant."}, '
    said += '{"role": "user", "content": "Hello world!"}], "max_completion_tokens": 1000'
    example = "".join(
        f'{{"custom_id": "request-{number}", "method": "POST", "url": "{CHAT}", '
        f'"body": {{"model": "org/chats", {said}}}}}\n'
        for number in (1, 2)
    )
    found = read_it(make(example.encode()))
    assert (found.state, found.total, found.model) == (BatchState.IN_PROGRESS, 2, "org/chats")
    assert rows(query, found)[1][3]["max_completion_tokens"] == 1000


def test_blank_lines_a_mark_and_ends_of_windows_are_passed_over(make: Make, read_it: Read, query: Any) -> None:
    content = b"\xef\xbb\xbf\r\n" + jsonl(line(1)).replace(b"\n", b"\r\n") + b"\n  \t\n" + jsonl(line(2)).rstrip(b"\n")
    found = read_it(make(content))
    assert (found.state, found.total) == (BatchState.IN_PROGRESS, 2)
    assert [(number, custom_id) for number, custom_id, *_ in rows(query, found)] == [(2, "row-1"), (5, "row-2")]
    assert read_it(make(b"\xef\xbb\xbf" + jsonl(line(1)))).total == 1


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"custom_id": None}, "missing_required_parameter", "custom_id"),
        ({"custom_id": ""}, "missing_required_parameter", "custom_id"),
        ({"custom_id": 7}, "missing_required_parameter", "custom_id"),
        ({"custom_id": "x" * 513}, "missing_required_parameter", "custom_id"),
        ({"custom_id": "row-1"}, "duplicate_custom_id", "custom_id"),
        ({"method": "GET"}, "invalid_method", "method"),
        ({"method": None}, "invalid_method", "method"),
        ({"url": "/v1/responses"}, "url_mismatch", "url"),
        ({"url": None}, "url_mismatch", "url"),
        ({"body": "text"}, "invalid_body", "body"),
        ({"body": None}, "invalid_body", "body"),
        ({"body": {"model": ["chats"]}}, "invalid_body", "body.model"),
        ({"body": {"model": "org/chats"}}, "model_mismatch", "body.model"),
        ({"body": {}}, "model_mismatch", "body.model"),
        ({"body": {"model": "chats", "user": "\0"}}, "invalid_json_line", "body.user"),
        ({"custom_id": "\ud800"}, "invalid_json_line", "custom_id"),
    ],
)
def test_a_wrong_line_fails_the_batch_and_is_named(
    make: Make, read_it: Read, query: Any, changes: dict[str, Any], code: str, param: str
) -> None:
    found = read_it(make(jsonl(line(1), line(2), line(3, **changes), line(4))))
    assert found.state is BatchState.FAILED
    (error,) = found.errors
    assert (error.code, error.param, error.line) == (code, param, 3)
    assert found.total == found.completed == found.failed == 0
    assert rows(query, found) == []


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{'custom_id': 1}", "The line is not valid JSON: Expecting property name enclosed in double quotes (column"),
        (b"[1]", "The line must be a JSON object."),
        (b"\xff\xfe{}", "The line is not UTF-8: byte 0 is not."),
        (b'{"custom_id": "1", "custom_id": "2"}', "'custom_id' is given twice in one object."),
        (b"[" * 3000, "The body nests deeper"),
        (b'{"a": NaN}', "Invalid 'a': the number is out of range."),
    ],
    ids=["quotes", "list", "encoding", "twice", "nesting", "number"],
)
def test_what_is_no_json_object_is_said_of_its_line(make: Make, read_it: Read, raw: bytes, message: str) -> None:
    (error,) = read_it(make(jsonl(line(1)) + raw + b"\n" + jsonl(line(2)))).errors
    assert (error.code, error.line) == ("invalid_json_line", 2)
    assert error.message.startswith(message.replace("The body", "The line"))


def test_a_line_that_is_larger_than_a_body_may_be_is_named(make: Make, read_it: Read) -> None:
    found = read_it(make(jsonl(line(1), line(2, "x" * 5 * BODY_LIMIT), line(3))))
    assert [(error.code, error.line) for error in found.errors] == [("line_too_long", 2)]
    assert f"{BODY_LIMIT} bytes" in found.errors[0].message


def test_a_wrong_first_line_gives_the_others_no_errors(make: Make, read_it: Read) -> None:
    found = read_it(make(jsonl(line(1, url="/v1/responses"), line(2), line(3))))
    assert [(error.code, error.line) for error in found.errors] == [("url_mismatch", 1)]


def test_of_many_errors_the_first_hundred_are_told(make: Make, read_it: Read) -> None:
    found = read_it(make(b"{}\n" * (LINES_LIMIT - 1)))
    assert [error.line for error in found.errors] == list(range(1, 101))


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"], ids=["empty", "blank", "mark"])
def test_a_file_without_lines_fails_the_batch(make: Make, read_it: Read, content: bytes) -> None:
    assert [(error.code, error.line) for error in read_it(make(content)).errors] == [("empty_file", None)]


def test_a_file_with_one_line_more_than_the_limit_fails_and_one_with_the_limit_does_not(
    make: Make, read_it: Read, query: Any
) -> None:
    most = [line(number) for number in range(LINES_LIMIT)]
    assert read_it(make(jsonl(*most) + b"\n\n")).total == LINES_LIMIT
    found = read_it(make(jsonl(*most, line(LINES_LIMIT))))
    assert [(error.code, error.line) for error in found.errors] == [("too_many_tasks", None)]
    assert str(LINES_LIMIT) in found.errors[0].message
    assert rows(query, found) == []


def test_the_inputs_of_a_batch_of_embeddings_are_counted(
    make: Make, read_it: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "INPUTS_LIMIT", 5)
    within = [embedding(1, "text"), embedding(2, [1, 2, 3]), embedding(3, ["a", "b"]), embedding(4, [[1, 2]])]
    assert read_it(make(jsonl(*within), EMBEDDINGS)).state is BatchState.IN_PROGRESS
    found = read_it(make(jsonl(*within, *(embedding(number, "one more") for number in range(5, 9))), EMBEDDINGS))
    assert [(error.code, error.line, error.param) for error in found.errors] == [("too_many_tasks", 5, "body.input")]


@pytest.mark.parametrize(
    ("model", "state"),
    [
        (None, BatchState.IN_PROGRESS),
        ("auto", BatchState.IN_PROGRESS),
        ("chats", BatchState.IN_PROGRESS),
        ("no-model", BatchState.FAILED),
    ],
)
def test_the_model_must_be_one_that_is_served(make: Make, read_it: Read, model: str | None, state: BatchState) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]} | ({"model": model} if model else {})
    found = read_it(make(jsonl(line(1, body=body), line(2, body=body))))
    assert (found.state, found.model) == (state, model if state is BatchState.IN_PROGRESS else None)
    if state is BatchState.FAILED:
        assert [(error.code, error.line, error.param) for error in found.errors] == [
            ("model_not_found", None, "body.model")
        ]


def test_a_deleted_file_fails_the_batch(web: Web, make: Make, read_it: Read) -> None:
    batch = make(jsonl(line(1)))
    with web.deps.store.begin() as db:
        files.delete(db, batch.app_id, batch.input_file_id)
    found = read_it(batch)
    assert found.state is BatchState.FAILED
    assert [(error.code, error.param) for error in found.errors] == [("file_not_found", "input_file_id")]


def test_a_file_of_another_app_fails_the_batch(web: Web, make: Make, read_it: Read, store: Store) -> None:
    with store.begin() as db:
        other = apps.ensure(db, "other")
    batch = make(jsonl(line(1)), app=other)
    with store.begin() as db:
        mine = sa.text("UPDATE batches SET app_id = (SELECT id FROM apps WHERE name = 'test') RETURNING app_id")
        app_id = db.scalar(mine)
    assert app_id is not None
    assert [error.code for error in read_it(_again_as(store, batch, app_id)).errors] == ["file_not_found"]


def _again_as(store: Store, batch: Batch, app_id: UUID) -> Batch:
    with store.begin() as db:
        return batches.find(db, app_id, batch.id)


def test_a_file_that_the_storage_lost_is_read_once_it_is_back(
    web: Web, make: Make, read_it: Read, tmp_path: Path
) -> None:
    batch = make(jsonl(line(1)))
    content = tmp_path / storage_key(batch.app_id, batch.input_file_id)
    content.rename(content.with_name("away"))
    with pytest.raises(StorageUnavailable, match="mounted"):
        read_it(batch)
    assert _again(web.deps.store, batch).state is BatchState.VALIDATING
    content.with_name("away").rename(content)
    assert read_it(batch).state is BatchState.IN_PROGRESS


class _Interrupted(Exception):
    pass


@pytest.fixture
def after_chunk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Calls a function once a given number of chunks is written."""

    def arrange(number: int, do: Callable[[], object]) -> None:
        for kind in (reading._Reader, reading._Copier):
            made = kind.chunks

            def chunks(self: Any, made: Any = made) -> Iterator[list[Any]]:
                for at, chunk in enumerate(made(self)):
                    if at == number:
                        do()
                    yield chunk

            monkeypatch.setattr(kind, "chunks", chunks)

    return arrange


MANY = jsonl(*(line(number) for number in range(3 * CHUNK)))


@pytest.fixture
def _few_deleted(query: Any) -> Iterator[None]:
    """Postgres refuses a statement that deletes more lines than one may."""
    query("DROP FUNCTION IF EXISTS refuse_lines CASCADE")
    query(
        "CREATE FUNCTION refuse_lines() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF (SELECT count(*) FROM gone) > {CHUNK} THEN RAISE EXCEPTION 'refused'; END IF; "
        "RETURN NULL; END $$"
    )
    query(
        "CREATE TRIGGER refuse_lines AFTER DELETE ON batch_lines REFERENCING OLD TABLE AS gone "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_lines()"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "SETTLE_ROWS", CHUNK)
        yield
    query("DROP FUNCTION IF EXISTS refuse_lines CASCADE")


@pytest.mark.usefixtures("_few_deleted")
def test_a_reader_that_dies_is_followed_by_one_that_deletes_its_lines_piece_by_piece_and_reads_all(
    make: Make, read_it: Read, after_chunk: Any, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise _Interrupted

    batch = make(MANY)
    after_chunk(2, die)
    with pytest.raises(_Interrupted):
        read_it(batch)
    assert len(rows(query, batch)) == 2 * CHUNK
    monkeypatch.undo()
    found = read_it(batch)
    assert (found.state, found.total) == (BatchState.IN_PROGRESS, 3 * CHUNK)
    assert [custom_id for _, custom_id, *_ in rows(query, found)] == [f"row-{number}" for number in range(3 * CHUNK)]


@pytest.mark.usefixtures("_few_deleted")
def test_the_lines_of_a_file_with_an_error_are_deleted_piece_by_piece(make: Make, read_it: Read, query: Any) -> None:
    found = read_it(make(MANY + b"{}"))
    assert (found.state, rows(query, found)) == (BatchState.FAILED, [])


def test_a_cancel_ends_the_reading(web: Web, make: Make, read_it: Read, after_chunk: Any, query: Any) -> None:
    batch = make(MANY)

    def cancel() -> None:
        with web.deps.store.begin() as db:
            batches.cancel(db, batch.app_id, batch.id)

    after_chunk(1, cancel)
    found = read_it(batch)
    assert (found.state, found.total) == (BatchState.CANCELLING, 0)
    assert len(rows(query, found)) == CHUNK, "`drop_unread` deletes them"


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_process_that_has_lost_its_lease_writes_nothing_any_more(
    web: Web, make: Make, read_it: Read, after_chunk: Any, query: Any, chunk: int
) -> None:
    batch = make(MANY)
    after_chunk(chunk, lambda: _lease(web.deps.store, new_id()))
    found = read_it(batch)
    assert (found.state, found.total) == (BatchState.VALIDATING, 0)
    assert len(rows(query, found)) == chunk * CHUNK


@pytest.mark.parametrize("content", [MANY, MANY + b"{}"], ids=["good", "bad"])
def test_a_late_reader_ends_nothing_that_another_one_has_begun(
    web: Web, make: Make, query: Any, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """The first reader has read all of the file when the second takes over; only then does it say what it found."""
    batch, first, second = make(content), new_id(), new_id()
    store = web.deps.store
    check = reading._Reader.check_whole

    def late(reader: Any) -> None:
        monkeypatch.undo()
        check(reader)
        _lease(store, second)
        with store.begin() as db:
            assert batches.clear_lines(db, batch.id, second)
            db.execute(sa.text("DELETE FROM batch_lines"))
            assert batches.put_lines(db, batch.id, second, [NewLine(1, "row-0", "", "{}")])

    monkeypatch.setattr(reading._Reader, "check_whole", late)
    _lease(store, first)
    assert sum(read(web.deps, first, batch)) == 1
    assert _again(store, batch).state is BatchState.VALIDATING
    assert len(rows(query, batch)) == 1


def test_a_batch_that_has_begun_is_not_read_again(make: Make, read_it: Read, query: Any) -> None:
    found = read_it(make(jsonl(line(1))))
    assert read_it(found) == found
    assert len(rows(query, found)) == 1


def test_errors_come_back_as_they_were_noted(make: Make, read_it: Read) -> None:
    (error,) = read_it(make(b"")).errors
    assert error == BatchError("empty_file", "The input file has no lines.")


def test_lines_that_begin_alike_have_one_prefix(make: Make, read_it: Read, query: Any) -> None:
    long = "You label tickets. " * 20
    found = read_it(make(jsonl(line(1, long + "a"), line(2, "other"), line(3, long + "b"))))
    prefixes = [prefix for (prefix,) in query("SELECT prefix FROM batch_lines ORDER BY number")]
    assert found.total == 3
    assert prefixes == [long[:PREFIX_CHARS], "other", long[:PREFIX_CHARS]]
    assert beginning(line(1, long)["body"]) == prefixes[0]


@pytest.fixture
def retried(web: Web, make: Make, read_it: Read, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """A batch that retries another one of `3 * CHUNK` lines, of which every third has an answer; it is not read yet."""
    monkeypatch.setattr(reading, "COPIED", 5)
    old = read_it(make(MANY))
    with web.deps.store.begin() as db:
        ended = "UPDATE batch_lines SET state = CASE WHEN number % 3 = 0 THEN 'succeeded' ELSE 'cancelled' END"
        db.execute(sa.text(ended))
        db.execute(sa.text("UPDATE batches SET state = 'cancelled'"))
        return batches.retry(
            db,
            batches.find(db, old.app_id, old.id),
            window_s=60,
            most_open=1,
            completion_window="1m",
        )


def test_a_retry_has_the_lines_without_an_answer(web: Web, retried: Batch, read_it: Read, query: Any) -> None:
    with web.deps.store.begin() as db:
        files.delete(db, retried.app_id, retried.input_file_id)
    found = read_it(retried)
    numbers = [number for number in range(1, 3 * CHUNK + 1) if number % 3]
    assert (found.state, found.total, found.model) == (BatchState.IN_PROGRESS, len(numbers), "chats")
    given = [line(number - 1) for number in numbers]
    expected = [(at, each["custom_id"], "waiting", each["body"]) for at, each in zip(numbers, given, strict=True)]
    assert rows(query, found) == expected
    prefixes = query("SELECT DISTINCT prefix FROM batch_lines WHERE batch_id = :id", id=found.id)
    assert prefixes == [("Hi",)]


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_retry_whose_old_lines_are_deleted_meanwhile_fails(
    web: Web, retried: Batch, read_it: Read, after_chunk: Any, query: Any, chunk: int
) -> None:
    def forget() -> None:
        with web.deps.store.begin() as db:
            assert batches.hide_lines(db, -1) == 1
            assert (old := batches.with_old_lines(db, -1, [])) is not None
            assert batches.delete_lines(db, old)

    after_chunk(chunk, forget)
    found = read_it(retried)
    assert (found.state, [error.code for error in found.errors]) == (BatchState.FAILED, ["lines_deleted"])
    assert rows(query, found) == []


def test_a_retry_that_is_cut_off_is_copied_anew(
    web: Web, retried: Batch, read_it: Read, query: Any, after_chunk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_chunk(1, lambda: _lease(web.deps.store, new_id()))
    assert read_it(retried).state is BatchState.VALIDATING
    assert len(rows(query, retried)) == CHUNK
    monkeypatch.undo()
    assert read_it(retried).total == len(rows(query, retried)) == 2 * CHUNK
