"""`/v1/files`: upload, read, list and delete files, in OpenAI's format. Their contents go to the storage by parts."""

import logging
import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import partial
from uuid import UUID

from flask import Blueprint, Response, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from api.calls import Stream, caller, parts, turn
from api.deps import WebDeps
from api.door.refusals import slots_full
from api.routes.operations import READ_BODY, describes
from api.routes.replies import reply_of
from api.routes.requests import listed, query
from api.schemas.body import validated
from api.slots import Slot
from api.turns import ClientGone, Step, Wake
from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.errors import BodyTooLarge, InvalidRequest, NotFound, Unavailable
from plugins.batches.domain import FILE_PREFIX, StoredFile, storage_key
from plugins.batches.part import BatchesPart, storage_of
from plugins.batches.schemas.files import DeletedFile, FileBody, FileForm, FileList, FilesQuery
from plugins.batches.storage import Writer
from plugins.batches.storage.base import StorageUnavailable
from plugins.batches.store import files

log = logging.getLogger(__name__)

#: Of the reference.
FILE_ID = ("A file's id.", "^file-[0-9a-f]{32}$")
ROUTES = Blueprint("files", __name__)
MIB = 1024 * 1024
#: Bytes of a form beside its file: headers, boundaries and fields.
FORM_BYTES = 64 * 1024
#: Parts of a form: the file, its purpose, and two for its expiry.
MOST_PARTS = 8
FIELD_BYTES = 1024
#: Bytes of the head of a part, and characters of the boundary between them, by RFC 2046. Python compiles the boundary
#: into patterns, which it keeps.
PART_HEAD_BYTES = 4096
BOUNDARY_CHARS_LIMIT = 70
FILENAME_CHARS_LIMIT = 255
_ID = re.compile(f"{FILE_PREFIX}([0-9a-f]{{32}})")


class _Decoder(MultipartDecoder):
    """A decoder of forms that parses no long head."""

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        if len(data) > PART_HEAD_BYTES:
            raise ValueError(f"The head of a part is longer than {PART_HEAD_BYTES} bytes")
        return super()._parse_headers(data)


class FileUpload:
    """The upload of one file.

    The file's row stands in Postgres before its content is in the storage, so that a sweep finds what a dead process
    has left.
    """

    def __init__(self, web: WebDeps, app: App, content_type: str | None, length: int | None) -> None:
        """Ask no server yet. Args: length: of the body; None if its client did not give it.

        Raises: InvalidRequest. BodyTooLarge. SlotsFull. ConfigError.
        """
        self._web, self._app_id, self._limit = web, app.id, web.of(BatchesPart).settings.files.limit_bytes
        kind, options = parse_options_header(content_type)
        boundary = options.get("boundary", "")
        if kind != "multipart/form-data" or not boundary or not boundary.isascii():
            raise InvalidRequest("A file is uploaded as multipart/form-data.", code="invalid_form")
        if len(boundary) > BOUNDARY_CHARS_LIMIT:
            raise InvalidRequest(f"A boundary has at most {BOUNDARY_CHARS_LIMIT} characters.", code="invalid_form")
        self._length = length
        if (length or 0) > self._limit + FORM_BYTES:
            raise self._too_large()
        self._storage = storage_of(web)
        self._decoder = _Decoder(boundary.encode(), max_parts=MOST_PARTS)
        self._fields: dict[str, str] = {}
        self._field: tuple[str, bytearray] | None = None
        self._file_id: UUID | None = None
        self._writer: Writer | None = None
        self._size = 0
        self._slot = slot_of(web, app)

    def take(self, data: bytes) -> None:
        """Take a part of the body. Raises: InvalidRequest. BodyTooLarge. StoreUnavailable. StorageUnavailable."""
        self._decoder.receive_data(data)
        self._advance()
        # What the decoder keeps is no part of the file's content, which it gives out at once.
        if len(self._decoder.buffer) > FORM_BYTES:
            raise InvalidRequest(f"The form has more than {FORM_BYTES} bytes beside its file.", code="invalid_form")

    def finish(self) -> StoredFile:
        """Keep the file, once the whole body was taken. Raises: as `take`."""
        self._decoder.receive_data(None)
        self._advance()
        if self._writer is None or self._file_id is None:
            raise InvalidRequest("The form has no file.", param="file", code="missing_parameter")
        form = validated(FileForm, self._fields)
        if (form.expires_anchor is None) != (form.expires_s is None):
            raise InvalidRequest("'expires_after' needs both 'anchor' and 'seconds'.", param="expires_after")
        self._writer.finish()
        keep_s = form.expires_s or self._web.of(BatchesPart).settings.files.keep_s
        with self._web.store.begin() as db:
            made = files.finish(db, self._file_id, form.purpose, self._size, keep_s)
        self._slot.release()
        return made

    def abandon(self) -> None:
        """Drop what was taken. What cannot be deleted now, the sweep finds by its row."""
        self._slot.release()
        if self._writer is not None:
            self._writer.abandon()
        if self._file_id is None:
            return
        try:
            with self._web.store.begin() as db:
                files.drop(db, self._file_id)
            # Also a whole file, whose row the sweep may have removed already.
            self._storage.delete(storage_key(self._app_id, self._file_id))
        except Unavailable as error:
            name = show_id(self._file_id, FILE_PREFIX)
            log.warning("upload_left_behind", extra={"file_id": name, "error": str(error)})

    def _advance(self) -> None:
        """Handle what the body has so far."""
        try:
            while not isinstance(event := self._decoder.next_event(), NeedData | Epilogue):
                match event:
                    case File():
                        self._begin(event.name, event.filename)
                    case Field():
                        self._field = event.name, bytearray()
                    case Data() if self._field is None:
                        self._write(event.data)
                    case Data():
                        self._add(event.data, is_last=not event.more_data)
        except (ValueError, KeyError) as error:
            raise InvalidRequest(f"The form is not valid: {error}.", code="invalid_form") from error
        except RequestEntityTooLarge as error:
            raise InvalidRequest(f"The form has more than {MOST_PARTS} parts.", code="invalid_form") from error

    def _begin(self, name: str, filename: str) -> None:
        if name != "file" or self._writer is not None:
            raise InvalidRequest(f"The form has a file '{name[:80]}' beside its one 'file'.", param=name[:80])
        if not filename or len(filename) > FILENAME_CHARS_LIMIT or not filename.isprintable():
            raise InvalidRequest(f"A file's name has 1 to {FILENAME_CHARS_LIMIT} printable characters.", param="file")
        self._field = None
        settings = self._web.of(BatchesPart).settings.files
        with self._web.store.begin() as db:
            self._file_id = files.begin(db, self._app_id, "batch", filename, self._most(), settings.app_limit_bytes)
        self._writer = self._storage.writer(storage_key(self._app_id, self._file_id))

    def _most(self) -> int:
        """What the file may have: less than the body, if its length is known."""
        return self._limit if self._length is None else min(self._limit, self._length)

    def _write(self, data: bytes) -> None:
        assert self._writer is not None, "A part that is no file is a field."
        self._size += len(data)
        if self._size > self._limit:
            raise self._too_large()
        self._writer.write(data)

    def _add(self, data: bytes, *, is_last: bool) -> None:
        assert self._field is not None
        name, value = self._field
        value += data
        if len(value) > FIELD_BYTES:
            raise InvalidRequest(f"'{name[:80]}' has more than {FIELD_BYTES} bytes.", param=name[:80])
        if is_last:
            if name in self._fields:
                raise InvalidRequest(f"'{name[:80]}' is given twice.", param=name[:80])
            self._fields[name] = value.decode(errors="replace")
            self._field = None

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The file is larger than {self._limit} bytes, the most that is taken here.")


def slot_of(web: WebDeps, app: App) -> Slot:
    """Returns a slot for an upload or a download. Raises: SlotsFull."""
    if (slot := web.of(BatchesPart).file_slots.take(app.id)) is None:
        raise slots_full("file")
    return slot


def _find(public_id: str) -> StoredFile:
    """Returns the caller's file. Raises: NotFound. StoreUnavailable."""
    file_id = parse_file_id(public_id)
    with parts().store.begin() as db:
        return files.find(db, caller().id, file_id)


def parse_file_id(text: str) -> UUID:
    """Returns the UUID in a file's id. Raises: NotFound."""
    if (found := _ID.fullmatch(text)) is None:
        raise NotFound(f"No file with id '{text[:80]}'.")
    return UUID(hex=found[1])


@ROUTES.post("/v1/files")
@describes(
    "OpenAI",
    "Upload a file for a batch",
    FileBody,
    form=FileForm,
    refusals=READ_BODY,
    about=(
        "A file of lines of JSON, each a request of a batch: 200 MiB at most, by default. It is kept for 30 "
        "days, or for its `expires_after`."
    ),
)
def upload() -> Response:
    """Take the file as it comes. Each MiB counts as a call of its app."""
    # The view reads the body itself: the server gives it part by part, whatever size is asked for.
    body, size = request.environ["wsgi.input"], 0
    taken = FileUpload(parts(), caller(), request.headers.get("Content-Type"), request.content_length)
    try:
        while part := body.read():
            size += len(part)
            taken.take(part)
        turn().calls_due += 1 + size // MIB
        return reply_of(FileBody.of(taken.finish()))
    except BaseException:
        taken.abandon()
        raise


@ROUTES.get("/v1/files")
@describes(
    "OpenAI",
    "List your files",
    FileList,
    query=FilesQuery,
    refusals=(400,),
    about="A page, with the files of batches' results. `after` is the last id of the page before.",
)
def list_files() -> Response:
    """Returns a page of the caller's files."""
    asked = query(FilesQuery)
    try:
        after = parse_file_id(asked.after) if asked.after else None
    except NotFound as error:
        raise InvalidRequest("Invalid 'after': it is not the id of a file.", param="after") from error
    with parts().store.begin() as db:
        found = files.newest(
            db,
            caller().id,
            limit=asked.limit + 1,
            purpose=asked.purpose,
            after=after,
            is_ascending=asked.order == "asc",
        )
    return listed(lambda: FileList.of([FileBody.of(file) for file in found], asked.limit))


@ROUTES.get("/v1/files/<file_id>")
@describes(
    "OpenAI",
    "Read a file's facts",
    FileBody,
    refusals=(404,),
    about="Its name, size, purpose, and when it is deleted.",
    id=FILE_ID,
)
def retrieve(file_id: str) -> Response:
    """Returns the file, without its content."""
    return reply_of(FileBody.of(_find(file_id)))


@ROUTES.get("/v1/files/<file_id>/content")
@describes(
    "OpenAI",
    "Read a file's content",
    FileBody,
    refusals=(404,),
    media="application/octet-stream",
    about="The bytes as they were uploaded, or the lines of a batch's results.",
    id=FILE_ID,
)
def content(file_id: str) -> Response:
    """Returns the file's bytes. Raises: StorageUnavailable, also where the storage lost a file that is not deleted."""
    file = _find(file_id)
    storage, slot = storage_of(parts()), slot_of(parts(), caller())
    with ExitStack() as exits:
        exits.callback(slot.release)
        try:
            pieces = exits.enter_context(storage.read(storage_key(file.app_id, file.id)))
        except NotFound as error:
            _find(file_id)
            raise StorageUnavailable("The storage has no content of this file: is it mounted?") from error
        turn().closing.append(exits.pop_all().close)
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.size)}
    return Stream(partial(_steps, pieces), headers, is_download=True)


def _steps(pieces: Iterator[bytes], _wake: Wake) -> Generator[Step, None, None]:
    try:
        for piece in pieces:
            yield Step(piece, 0.0)
    except ClientGone:
        return


@ROUTES.delete("/v1/files/<file_id>")
@describes(
    "OpenAI",
    "Delete a file",
    DeletedFile,
    refusals=(404,),
    about="No call finds it from now on. A batch that has read its lines goes on.",
    id=FILE_ID,
)
def delete(file_id: str) -> Response:
    """Delete the file. No call finds it from now on; `forget_files` deletes its content."""
    found = parse_file_id(file_id)
    with parts().store.begin() as db:
        files.delete(db, caller().id, found)
    return reply_of(DeletedFile(id=show_id(found, FILE_PREFIX)))
