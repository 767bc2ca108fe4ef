"""Reads the file of a batch into lines. Only what makes it no batch is an error here: each line's request is checked
when it is submitted.
"""

import codecs
import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

from api.deps import WebDeps
from api.schemas.body import parse_object
from headrace.config.rules import AUTO
from headrace.errors import InvalidRequest, ModelNotFound, NotFound
from headrace.http import lines_of
from plugins.batches import store as batches
from plugins.batches.domain import Batch, BatchError, NewLine, storage_key
from plugins.batches.part import BatchesPart, storage_of
from plugins.batches.storage.base import StorageUnavailable
from plugins.batches.store import PREFIX_CHARS, files, line_texts
from plugins.batches.store.line_texts import DROPPED

#: Lines of one transaction, at most, and the bytes of the file after which it ends. Apps take turns after each.
CHUNK, CHUNK_BYTES = 1000, 4 * 1024**2
#: Lines of an old batch that are read at once.
COPIED = 200
#: Errors after which the rest of a file is not read.
MOST_ERRORS = 100
CUSTOM_ID_CHARS_LIMIT = 512
#: Inputs of all lines of a batch of embeddings. Source: OpenAI's documentation of batches.
INPUTS_LIMIT = 50_000


def read(web: WebDeps, runner_id: UUID, batch: Batch) -> Iterator[int]:
    """Write the lines of the batch's file, and let them run; or fail the batch with what is wrong.

    Those of a retry are copied from the batch that it retries. Safe to repeat, also after a part was read.
    Yields: after each chunk, whether the batch is read. Raises: StoreUnavailable. StorageUnavailable.
    """
    if not (yield from _cleared(web, runner_id, batch)):
        return
    reader = _Reader(web, batch) if batch.retry_of is None else _Copier(web, batch, batch.retry_of)
    for chunk in reader.chunks():
        with web.store.begin() as db:
            if not batches.put_lines(db, batch.id, runner_id, chunk):
                return
        yield False
    reader.check_whole()
    is_cleared = not reader.errors or (yield from _cleared(web, runner_id, batch))
    with web.store.begin() as db:
        if not reader.errors:
            batches.begin(db, batch.id, runner_id, reader.total, reader.model)
        elif is_cleared:
            batches.reject(db, batch.id, runner_id, reader.errors)
    yield True


def _cleared(web: WebDeps, runner_id: UUID, batch: Batch) -> Generator[int, None, bool]:
    """Delete the lines that are written, some in each transaction. Yields: as `read`. Returns: as `put_lines`."""
    while True:
        with web.store.begin() as db:
            deleted = batches.clear_lines(db, batch.id, runner_id)
        if not deleted:
            return deleted is not None
        yield False


class _Copier:
    """The lines of an ended batch that have no answer. Attributes: as of `_Reader`."""

    def __init__(self, web: WebDeps, batch: Batch, old_id: UUID) -> None:
        self._web, self._batch, self._old_id = web, batch, old_id
        self.total, self.errors, self.model = 0, list[BatchError](), batch.model

    def chunks(self) -> Iterator[list[NewLine]]:
        """The lines, with their numbers in the file. Raises: StoreUnavailable. StorageUnavailable."""
        return _chunks((len(line.body), line) for line in self._lines())

    def _lines(self) -> Iterator[NewLine]:
        given, after = self._given(), 0
        while True:
            with self._web.store.autocommit() as db:
                page = line_texts.unanswered(db, self._old_id, after, COPIED)
            if not page:
                return
            self.total += len(page)
            after = page[-1].number
            for line in page:
                yield line if line.body != DROPPED else self._again(line, given)

    def _given(self) -> Iterator[tuple[int, bytes]]:
        """The lines of the input file with their numbers; none once it is deleted."""
        with suppress(NotFound):
            yield from enumerate(_raw_lines(self._web, self._batch), 1)

    def _again(self, line: NewLine, given: Iterator[tuple[int, bytes]]) -> NewLine:
        """The line with its request from the file; with an empty one, which will be refused, if the file has none."""
        raw = next((raw for number, raw in given if number == line.number), None)
        try:
            body = parse_object(raw or b"")["body"]
        except InvalidRequest:  # Deleted, or longer than a line may be by now.
            return line._replace(body="")
        return line._replace(prefix=beginning(body), body=_request(body))

    def check_whole(self) -> None:
        """Note whether lines were deleted before they were copied."""
        with self._web.store.begin() as db:
            if not batches.find(db, self._batch.app_id, self._old_id).has_lines:
                self.errors.append(BatchError("lines_deleted", "The lines of the batch that it retries are deleted."))


class _Reader:
    """One reading of a file.

    Attributes:
        total: lines so far. errors: what is wrong with the file so far.
        model: that of the first line that can be read.
    """

    def __init__(self, web: WebDeps, batch: Batch) -> None:
        self._web, self._batch = web, batch
        self.total, self.errors = 0, list[BatchError]()
        self.model: str | None = None
        self._has_model = False
        self._seen: set[str] = set()
        self._inputs = 0

    def chunks(self) -> Iterator[list[NewLine]]:
        """The lines of the file. Once one is wrong, the rest are only checked.

        Raises: StoreUnavailable. StorageUnavailable.
        """
        try:
            yield from _chunks(self._checked(_raw_lines(self._web, self._batch)))
        except NotFound:
            self._note("file_not_found", "The input file is deleted.", None, "input_file_id")

    def _checked(self, given: Iterable[bytes]) -> Iterator[tuple[int, NewLine | None]]:
        """Each line with its bytes; None for one that is blank, wrong, or after a wrong one."""
        limit = self._web.of(BatchesPart).settings.lines_limit
        for number, raw in enumerate(given, 1):
            if not raw.strip():
                if number - self.total > limit:
                    self._note(
                        "too_many_tasks", f"A file may have {limit} blank lines here, and this one has more.", None
                    )
                    return
                yield len(raw), None
                continue
            self.total += 1
            if self.total > limit:
                self._note("too_many_tasks", f"A batch may have {limit} lines here, and this file has more.", None)
                return
            line: NewLine | None
            try:
                line = self._line(number, raw)
            except InvalidRequest as error:
                self._note(error.code, str(error), number, error.param)
                if len(self.errors) >= MOST_ERRORS or error.code == "too_many_tasks":
                    return
                line = None
            yield len(raw), None if self.errors else line

    def check_whole(self) -> None:
        """Note what is wrong with the file as a whole, once all lines are read."""
        if not self.total and not self.errors:
            self._note("empty_file", "The input file has no lines.", None)
        if self.errors or (self.model == AUTO and self._web.settings.rules):
            return
        try:
            self._web.catalogue.find(self.model, is_embedding=self._batch.endpoint == "/v1/embeddings")
        except ModelNotFound as error:
            self._note(error.code, str(error), None, "body.model")

    def _note(self, code: str, message: str, line: int | None, param: str | None = None) -> None:
        self.errors.append(BatchError(code, message, line, param))

    def _line(self, number: int, raw: bytes) -> NewLine:
        """Raises: InvalidRequest: what makes the file no batch."""
        if len(raw) > self._web.settings.body_limit_bytes:
            limit = self._web.settings.body_limit_bytes
            raise InvalidRequest(f"A line may have {limit} bytes, and this one has more.", code="line_too_long")
        try:
            line = parse_object(raw)
        except InvalidRequest as error:
            # A line of a file has one line.
            message = str(error).replace("The body", "The line", 1).replace("(line 1, column", "(column")
            raise InvalidRequest(message, code="invalid_json_line", param=error.param) from error
        custom_id, body = self._custom_id(line), line.get("body")
        if line.get("method") != "POST":
            raise InvalidRequest("The method of each line is 'POST'.", code="invalid_method", param="method")
        if line.get("url") != self._batch.endpoint:
            raise InvalidRequest(
                f"The 'url' of each line is the batch's endpoint, {self._batch.endpoint}.",
                code="url_mismatch",
                param="url",
            )
        if not isinstance(body, dict):
            raise InvalidRequest("The 'body' of each line is an object.", code="invalid_body", param="body")
        self._check_model(body)
        self._check_inputs(body)
        return NewLine(number, custom_id, beginning(body), _request(body))

    def _custom_id(self, line: dict[str, Any]) -> str:
        custom_id = line.get("custom_id")
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= CUSTOM_ID_CHARS_LIMIT:
            raise InvalidRequest(
                f"Each line has a 'custom_id' of 1 to {CUSTOM_ID_CHARS_LIMIT} characters.",
                code="missing_required_parameter",
                param="custom_id",
            )
        if custom_id in self._seen:
            raise InvalidRequest(
                f"The custom_id '{custom_id[:80]}' is that of an earlier line.",
                code="duplicate_custom_id",
                param="custom_id",
            )
        self._seen.add(custom_id)
        return custom_id

    def _check_model(self, body: dict[str, Any]) -> None:
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            raise InvalidRequest("A model is named by a text.", code="invalid_body", param="body.model")
        if not self._has_model:
            self.model, self._has_model = model, True
        if model != self.model:
            named = "no model" if self.model is None else f"'{self.model[:80]}'"
            raise InvalidRequest(
                f"All lines of a batch name the same model, and the first line names {named}.",
                code="model_mismatch",
                param="body.model",
            )

    def _check_inputs(self, body: dict[str, Any]) -> None:
        if self._batch.endpoint != "/v1/embeddings":
            return
        given = body.get("input")
        # A list of token ids is one input.
        self._inputs += len(given) if isinstance(given, list) and not (given and isinstance(given[0], int)) else 1
        if self._inputs > INPUTS_LIMIT:
            raise InvalidRequest(
                f"The lines of a batch of embeddings may have {INPUTS_LIMIT} inputs in all.",
                code="too_many_tasks",
                param="body.input",
            )


def _raw_lines(web: WebDeps, batch: Batch) -> Iterator[bytes]:
    """The lines of a batch's input file. Raises: NotFound: it is deleted. StoreUnavailable. StorageUnavailable."""
    storage = storage_of(web)
    with web.store.begin() as db:
        files.find(db, batch.app_id, batch.input_file_id)
    try:
        with storage.read(storage_key(batch.app_id, batch.input_file_id)) as parts:
            yield from _split(parts, web.settings.body_limit_bytes)
    except NotFound as error:
        raise StorageUnavailable("The storage has no content of this file: is it mounted?") from error


def _request(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def beginning(body: dict[str, Any]) -> str:
    """How the prompt of a request begins, at most `PREFIX_CHARS` characters."""
    prompt = body.get("instructions") or body.get("messages") or body.get("prompt") or body.get("input")
    while isinstance(prompt, list | dict) and prompt:
        prompt = prompt[0] if isinstance(prompt, list) else prompt.get("content", prompt.get("text"))
    return str(prompt or "")[:PREFIX_CHARS]


def _chunks(lines: Iterable[tuple[int, NewLine | None]]) -> Iterator[list[NewLine]]:
    """The lines of one transaction each. Args: lines: each with its bytes in the file; None counts them alone."""
    chunk, size = list[NewLine](), 0
    for line_bytes, line in lines:
        size += line_bytes
        if line is not None:
            chunk.append(line)
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _split(parts: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """The lines of a file that comes in parts. Of a line that is too long, a piece, which is refused as well."""
    for number, line in enumerate(lines_of(parts, limit)):
        yield (line if number else line.removeprefix(codecs.BOM_UTF8)).removesuffix(b"\n")
