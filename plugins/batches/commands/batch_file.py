"""A batch from a file: its first line is looked at, the file is uploaded by parts, and the batch is made."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from headrace.cli.client import Api, ApiRefused, patiently
from headrace.cli.output import note, notes
from plugins.batches.domain import ENDPOINTS

#: What a line should look like, for messages.
REMEDY = (
    "Give one request a line, such as "
    '{"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"input": "Hi"}}'
)
#: Fields of the lines that 'headrace submit --file' takes.
PROMPTS = frozenset({"prompt", "messages"})
#: How a file is called whose own name cannot be sent.
NAMELESS = "lines.jsonl"
#: Characters of a file's name that the API takes.
NAME_CHARS_LIMIT = 255


def submit(api: Api, path: Path, body: dict[str, Any]) -> dict[str, Any]:
    """Upload the file and make its batch. Args: body: of `POST /v1/batches`, without what the file says.

    Raises: click.ClickException.
    """
    endpoint = endpoint_of(path)
    with _bar(path) as (file, tell):
        form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": (_name(path), file)}}
        uploaded = patiently(lambda: api.call("POST", "/v1/files", **form), tell)
        try:
            return make_once(api, "/v1/batches", {"input_file_id": uploaded["id"], "endpoint": endpoint, **body}, tell)
        except ApiRefused:
            with suppress(click.ClickException):
                api.call("DELETE", f"/v1/files/{uploaded['id']}")
            raise


def make_once(api: Api, path: str, body: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """Make a batch, one alone also where the answer is lost and the request is sent again. Raises: as `patiently`."""
    key = {"Idempotency-Key": uuid.uuid4().hex}
    return patiently(lambda: api.call("POST", path, json=body, headers=key), tell)


def endpoint_of(path: Path) -> str:
    """The endpoint that the first line names. The API checks all else. Raises: click.ClickException."""
    number, raw = _first_line(path)
    where = f"{path}, line {number},"
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{where} is not JSON: {error}. {REMEDY}") from None
    if isinstance(line, str) or (isinstance(line, dict) and "url" not in line and PROMPTS & line.keys()):
        raise click.ClickException(f"{where} is a prompt: 'headrace submit --file' takes those. {REMEDY}")
    if not isinstance(line, dict) or not isinstance(line.get("url"), str):
        raise click.ClickException(f"{where} is no request with a 'url'. {REMEDY}")
    if line["url"] not in ENDPOINTS:
        raise click.ClickException(f"{where} has the url '{line['url'][:80]}': {', '.join(ENDPOINTS)} can be used.")
    return str(line["url"])


def _first_line(path: Path) -> tuple[int, bytes]:
    """The first line that is not blank, and its number."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                return number, raw
    raise click.ClickException(f"{path} has no lines. {REMEDY}")


def _name(path: Path) -> str:
    return path.name if path.name.isprintable() and len(path.name) <= NAME_CHARS_LIMIT else NAMELESS


@contextmanager
def _bar(path: Path) -> Iterator[tuple[BinaryIO, Callable[[str], None]]]:
    """A progress bar on standard error. Yields: the open file, of which it shows what is read; shows a note."""
    columns = (
        BarColumn(24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[note]}", style="yellow"),
    )
    shown = Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal)
    with path.open("rb") as file, shown as progress:
        bar = progress.add_task("", total=path.stat().st_size, note="")

        def tell(text: str) -> None:
            progress.update(bar, note=escape(text))
            if not notes.is_terminal:
                note(text)

        yield progress.wrap_file(file, task_id=bar), tell
