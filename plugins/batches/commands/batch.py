"""`headrace batch`, which uses HTTP like any other client: submit, list, watch, results, cancel, retry."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from headrace.cli import parameters
from headrace.cli.client import Api, open_api
from headrace.cli.output import json_option, note, note_more, notes, out, print_json, print_uncut, table
from headrace.domain.queues import Overflow
from headrace.errors import NotFound
from plugins.batches.commands import batch_file
from plugins.batches.commands.results import write_results
from plugins.batches.commands.watching import ended_lines, report, time_of, watch
from plugins.batches.domain import BatchState, parse_batch_id, window_s

#: Batches on one page of the API.
PAGE = 100


def _window(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """A completion window. Raises: BadParameter."""
    if text is not None and window_s(text) is None:
        raise click.BadParameter(f"'{text[:40]}' is not a time from 1m to 30d, such as 24h, 90m or 1h38min.")
    return text


def _metadata(_context: click.Context, _parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, str]:
    """Pairs of a key and a value. Raises: BadParameter."""
    split = [pair.partition("=") for pair in pairs]
    for pair, (key, equals, _) in zip(pairs, split, strict=True):
        if not key or not equals:
            raise click.BadParameter(f"'{pair[:40]}' is not a key and a value, such as run=7.")
    return {key: value for key, _, value in split}


def _checked_id(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """The id of a batch, which cannot lead to another path of the API. Raises: BadParameter."""
    if text is None:
        return None
    try:
        parse_batch_id(text)
    except NotFound as error:
        message = f"'{text[:80]}' is not the id of a batch: 'headrace batch list' lists those of your app."
        raise click.BadParameter(message) from error
    return text


batch_id = click.argument("batch_id", metavar="ID", callback=_checked_id)
is_watched = click.option("--watch", "is_watched", is_flag=True, help="Stay until it ends, as 'headrace batch watch'.")


@click.group()
def batch() -> None:
    """Run the lines of a file as one batch, which goes on without this command.

    \b
    headrace batch submit lines.jsonl --window 12h
    headrace batch watch batch_0197…               a progress bar, until it ends
    headrace batch results batch_0197… -o results.jsonl
    headrace batch retry batch_0197…               the lines without an answer, again

    Lines wait in the lane 'batch', which takes what the other lanes leave of the GPUs. What has not started when the
    window ends expires and costs nothing. The file, the states and the results are those of OpenAI's batches, so its
    SDK and these commands work on the same ones. docs/batches.md describes them.
    """


@batch.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option(
    "--window", default="24h", show_default=True, metavar="TIME", callback=_window,
    help="How long the lines have: 90m, 1h38min, 2d.",
)  # fmt: skip
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", callback=_metadata, help="Kept with it; repeatable.")
@click.option(
    "--overflow", type=click.Choice([str(each) for each in Overflow]),
    help="Whether the paid API may answer lines. Default: never.",
)  # fmt: skip
@click.option("--webhook", metavar="URL", help="Called once it has ended, signed with the app's secret.")
@click.option(
    "--not-before", metavar="TIME", callback=parameters.later,
    help="No line starts before: 2h from now, or 2026-03-01T22:00. The window begins then.",
)  # fmt: skip
@is_watched
@json_option
def submit(file: Path, window: str, metadata: dict[str, str], is_watched: bool, as_json: bool, **options: Any) -> None:
    """Upload FILE and make a batch of its lines. Prints the batch's id.

    \b
    headrace batch submit lines.jsonl
    headrace batch submit lines.jsonl --window 8h --not-before 2026-03-01T22:00 --metadata run=7
    id=$(headrace batch submit lines.jsonl) && headrace batch watch $id; headrace batch results $id -o results.jsonl

    Each line of FILE is a request as OpenAI's batches and 'vllm run-batch' have it, and the first one's url is that of
    all:

    \b
    {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"input": "Hi", "max_output_tokens": 50}}

    The file is read after the upload: the batch is 'failed' if it has duplicate ids, two models or lines that are not
    JSON. 'headrace batch watch' says which. A request that its endpoint refuses fails alone.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    body = {"completion_window": window, **({"metadata": metadata} if metadata else {}), "job": chosen}
    api = open_api()
    _made(api, batch_file.submit(api, file, body), is_watched=is_watched, as_json=as_json)


def _made(api: Api, made: Mapping[str, Any], *, is_watched: bool, as_json: bool) -> None:
    """Print a new batch, or watch it."""
    if is_watched:
        notes.print(made["id"])
        report(api, watch(api, made["id"]), as_json=as_json)
    elif as_json:
        print_json(made)
    else:
        out.print(made["id"])
        note(f"'headrace batch watch {made['id']}' shows how far it is.")


@batch.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@json_option
def list_(limit: int, as_json: bool) -> None:
    """List your app's batches, newest first."""
    found = _newest(open_api(), limit)
    if as_json:
        print_json(found)
        return
    if not found:
        out.print("There are no batches.")
        return
    rows = table("batch", "state", numbers=["ended", "failed", "usd"])
    rows.add_column("made (UTC)", no_wrap=True)
    for each in found:
        counts, usd = each["request_counts"], f"{float(each['job']['usd']):.2f}"
        lines = f"{ended_lines(each):,}/{counts['total']:,}"
        made = f"{time_of(each['created_at']):%m-%d %H:%M}"
        rows.add_row(*map(escape, (each["id"], each["status"], lines, f"{counts['failed']:,}", usd, made)))
    print_uncut(out, rows)
    if len(found) == limit:
        note_more(limit)


def _newest(api: Api, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        after = {"after": found[-1]["id"]} if found else {}
        page = api.call("GET", "/v1/batches", params={"limit": min(PAGE, limit - len(found)), **after})
        found += page["data"]
        if len(found) >= limit or not page["has_more"]:
            return found


@batch.command("watch")
@batch_id
@json_option
def watch_(batch_id: str, as_json: bool) -> None:
    """Show how far the batch ID is, until it ends: its state, lines, failures, lines a second, and expected end.

    In a terminal it draws a bar, elsewhere it prints a line every 10 s or more. Ctrl-C stops the command, and the batch
    goes on. While the API is away, it waits. At the end it lists the first lines without an answer, or what is wrong
    with the file.

    The exit status is 0 if every line has an answer, 1 if not, and 130 after Ctrl-C.
    """
    api = open_api()
    report(api, watch(api, batch_id), as_json=as_json)


@batch.command()
@batch_id
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Where they go; what it had is replaced once all are there. Default: standard output.",
)  # fmt: skip
@click.option("--errors", "only_failed", is_flag=True, help="Only lines without an answer.")
@click.option("--json", "as_json", is_flag=True, help="With --output: print the counts as JSON.")
def results(batch_id: str, output: Path | None, only_failed: bool, as_json: bool) -> None:
    """Write the results of the batch ID: one JSON object a line, in the order of its file.

    \b
    headrace batch results ID -o results.jsonl
    headrace batch results ID --errors | jq -r '[.custom_id, (.error // .response.body.error).code] | @tsv'
    headrace batch results ID | jq -r '[.custom_id, .response.body.output[-1].content[0].text] | @tsv'

    They are those of the output file and of the error file together. While the batch runs, they are those of the lines
    that have ended.
    """
    write_results(open_api(), batch_id, output, only_failed=only_failed, as_json=as_json)


@batch.command()
@batch_id
@json_option
def cancel(batch_id: str, as_json: bool) -> None:
    """Cancel the batch ID: no line starts any more, and those that run stop.

    Answers that are there stay, and are paid for. A batch that has ended stays as it is.
    """
    found = open_api().call("POST", f"/v1/batches/{batch_id}/cancel")
    if as_json:
        print_json(found)
        return
    out.print(f"{found['id']}  {found['status']}")
    if found["status"] not in (BatchState.CANCELLING, BatchState.CANCELLED):
        notes.print("It had ended before.")


@batch.command()
@batch_id
@click.option("--window", metavar="TIME", callback=_window, help="How long the lines have; that of ID by default.")
@is_watched
@json_option
def retry(batch_id: str, window: str | None, is_watched: bool, as_json: bool) -> None:
    """Run the lines of the ended batch ID that have no answer again, as a new batch. Prints its id.

    The lines are the same, so a request that its endpoint refused is refused again: correct it, and submit a file.
    """
    api = open_api()
    body = {} if window is None else {"completion_window": window}
    made = batch_file.make_once(api, f"/v1/batches/{batch_id}/retry", body, note)
    _made(api, made, is_watched=is_watched, as_json=as_json)
