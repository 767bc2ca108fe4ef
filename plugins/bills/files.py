"""Files of bills: a simple CSV, AWS's cost and usage report, and the usage and costs of an OpenAI organization.

The columns say which it is. docs/analytics.md has an example of each.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from plugins.bills.checks import BillLine, BillSource, OutsideBill

Row = Mapping[str, str]

HOSTS = ("day", "host", "type", "hours", "usd")
API = ("day", "model", "requests", "prompt_tokens", "cached_tokens", "output_tokens", "usd")
AWS = (
    "line_item_usage_start_date",
    "line_item_usage_type",
    "line_item_resource_id",
    "line_item_usage_amount",
    "line_item_unblended_cost",
)
OPENAI = ("start_time", "model", "num_model_requests", "input_tokens", "output_tokens")
#: An EC2 instance that runs. Its disks and its traffic are other lines.
_RUNS = "RunInstances"
#: What AWS charges for time itself: on demand, by a savings plan, or reserved.
_AWS_KINDS = frozenset({"Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"})
#: No bill has such an amount. A sum of larger ones would lose digits.
_MOST = Decimal(10) ** 12
#: Names of machines and models are shorter.
_MOST_CHARACTERS = 500


def read(paths: Sequence[Path], types: Sequence[str], tags: Mapping[str, str]) -> OutsideBill:
    """Read the files of one bill. Raises: ClickException: which file and line is wrong, and how.

    Args:
        types: only hosts of these types.
        tags: only resources of AWS with these tags.
    """
    if twice := [path for at, path in enumerate(paths) if any(path.samefile(other) for other in paths[:at])]:
        raise click.UsageError(f"{twice[0]} is given twice, and would count twice: leave one of them out.")
    found = [(path, *_read(path, tags)) for path in paths]
    sources = {source for _, source, _ in found}
    if len(sources) > 1:
        raise click.UsageError("The files are bills of hosts and of the paid API: reconcile them one after the other.")
    rows = [row for _, _, of_file in found for row in of_file]
    lines = [row for row in rows if isinstance(row, BillLine) and (not types or row.kind in types)]
    listed = {row.day if isinstance(row, BillLine) else row for row in rows}
    if not lines:
        which = f" of type {', '.join(types)}" if types else ""
        raise click.ClickException(f"{', '.join(map(str, paths))} has no line{which} to compare.")
    return OutsideBill(sources.pop(), ", ".join(path.name for path in paths), lines, types, sorted(listed))


def _read(path: Path, tags: Mapping[str, str]) -> tuple[BillSource, list[BillLine | date]]:
    """The source, and the lines; a day in place of one that has nothing to compare."""
    try:
        with path.open("rb") as binary, ExitStack() as stack:
            plain = stack.enter_context(gzip.open(binary)) if path.suffix == ".gz" else binary
            file = stack.enter_context(TextIOWrapper(plain, encoding="utf-8-sig", newline=""))
            if path.name.removesuffix(".gz").endswith(".json"):
                return BillSource.API, list(_openai_json(path, json.load(file)))
            return _csv(path, csv.DictReader(file), tags)
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path} is not in UTF-8: save it again as text in UTF-8.") from error
    except (OSError, EOFError, ValueError, csv.Error, zlib.error, RecursionError) as error:
        raise click.ClickException(f"{path} cannot be read: {error}") from error


def _csv(path: Path, rows: "csv.DictReader[str]", tags: Mapping[str, str]) -> tuple[BillSource, list[BillLine | date]]:
    columns = {_snake(name): name for name in rows.fieldnames or ()}
    readers: tuple[tuple[Sequence[str], BillSource, Callable[[Row], BillLine | date | None]], ...] = (
        (HOSTS, BillSource.HOSTS, _host),
        (AWS, BillSource.HOSTS, lambda row: _aws(row, tags)),
        (OPENAI, BillSource.API, _openai),
        (API, BillSource.API, _model),
    )
    for needed, source, reader in readers:
        if set(needed) <= columns.keys():
            names = [_snake(name) for name in rows.fieldnames or ()]
            if twice := [name for name in needed if names.count(name) > 1]:
                raise click.ClickException(f"{path} has the column '{twice[0]}' twice: leave one of them out.")
            return source, list(_lines(path, rows, columns, reader))
    raise click.ClickException(
        f"{path} is no bill that is known here. Its first line needs the columns {','.join(HOSTS)} for hosts or "
        f"{','.join(API)} for the paid API; or those of AWS's cost and usage report with resource ids, or of a usage "
        "export of OpenAI."
    )


def _snake(name: str) -> str:
    """One spelling for both of AWS's: `lineItem/UsageStartDate` and `line_item_usage_start_date`."""
    words = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name.strip())
    return words.replace("/", "_").replace(" ", "_").lower()


def _lines(
    path: Path, rows: "csv.DictReader[str]", columns: Mapping[str, str], reader: Callable[[Row], BillLine | date | None]
) -> Iterator[BillLine | date]:
    for row in rows:
        try:
            if any(row.get(None) or ()):
                raise ValueError("it has more fields than the first line: put a value with a comma in quotes")
            line = reader({name: row.get(given) or "" for name, given in columns.items()})
        except ValueError as error:
            raise click.ClickException(f"{path}, line {rows.line_num}: {error}") from error
        if line is not None:
            yield line


def _host(row: Row) -> BillLine:
    kind = _text(row, "type") if row["type"].strip() else None
    return BillLine(_day(row), _text(row, "host"), kind, _amount(row, "hours"), usd=_amount(row, "usd"))


def _model(row: Row) -> BillLine:
    return BillLine(
        _day(row),
        _text(row, "model"),
        requests=_count(row, "requests"),
        prompt_tokens=_count(row, "prompt_tokens"),
        cached_tokens=_count(row, "cached_tokens"),
        output_tokens=_count(row, "output_tokens"),
        usd=_amount(row, "usd") if row["usd"].strip() else None,
    )


def _aws(row: Row, tags: Mapping[str, str]) -> BillLine | None:
    """A line of AWS's report; None for what is no running instance, or has other tags."""
    if row.get("line_item_operation", _RUNS)[: len(_RUNS)] != _RUNS or "Usage:" not in row["line_item_usage_type"]:
        return None
    if row.get("line_item_line_item_type", "Usage") not in _AWS_KINDS:
        return None
    if tags and not {_tag(key): value for key, value in tags.items()}.items() <= _tags(row).items():
        return None
    plan, reserved = (row.get(f"{name}_effective_cost") for name in ("savings_plan_savings_plan", "reservation"))
    usd = plan or reserved or row["line_item_unblended_cost"]
    kind = row.get("product_instance_type") or row["line_item_usage_type"].rpartition(":")[2]
    name = _text(row, "line_item_resource_id").rpartition("/")[2]
    return BillLine(
        _moment(row, "line_item_usage_start_date"),
        name,
        kind,
        _number("line_item_usage_amount", row["line_item_usage_amount"]),
        usd=_number("line_item_unblended_cost", usd),
    )


def _tags(row: Row) -> dict[str, str]:
    """The tags of a resource, which the first version has in columns and the second one in a map."""
    start = "resource_tags_"
    columns = {name.removeprefix(start): value for name, value in row.items() if name.startswith(start)}
    listed = json.loads(row.get("resource_tags") or "{}")
    if not isinstance(listed, dict):
        raise ValueError(f"'resource_tags' is no JSON object: '{row['resource_tags'][:40]}'")
    return {_tag(name): str(value) for name, value in (columns | listed).items()}


def _tag(key: str) -> str:
    """One spelling of a tag's key, which one version writes as it is and the other one with underscores."""
    plain = re.sub(r"[^a-z0-9]", "", key.lower())
    return plain if plain.startswith(("aws", "user")) else f"user{plain}"


def _openai(row: Row) -> BillLine | date:
    """A line of OpenAI's usage export; the day of an hour without a call."""
    at = _moment(row, "start_time")
    if not row["model"]:
        return at.date()
    return BillLine(
        at,
        _text(row, "model"),
        requests=_count(row, "num_model_requests"),
        prompt_tokens=_count(row, "input_tokens"),
        cached_tokens=_count(row, "input_cached_tokens") if row.get("input_cached_tokens") else 0,
        output_tokens=_count(row, "output_tokens"),
    )


def _openai_json(path: Path, page: Any) -> Iterator[BillLine | date]:
    """OpenAI's answer to `GET /organization/usage/completions`, or `/organization/costs` grouped by `line_item`."""
    try:
        if page.get("has_more"):
            raise click.ClickException(
                f"{path} has 'has_more': true: its last days are on further pages. Ask again with a larger 'limit', or "
                "for fewer days, so that 'has_more' is false; '--bill' takes a file for each part."
            )
        for bucket in page["data"]:
            start = {"start_time": bucket["start_time"]}
            yield _moment({"start_time": str(start["start_time"])}, "start_time").date()
            for each in bucket["results"]:
                if line := _openai_result({**each, **start}):
                    yield line
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = "OpenAI's /organization/usage/completions grouped by model, or /organization/costs grouped by line item"
        raise click.ClickException(f"{path} is no answer of {what}: {error!r}") from error


def _openai_result(each: Mapping[str, Any]) -> BillLine | date | None:
    row = {name: "" if value is None else str(value) for name, value in each.items()}
    if "amount" not in each:
        return _openai({"model": "", **row})
    # Such as 'gpt-4o-mini-2024-07-18, input'.
    row["line_item"] = row.get("line_item", "").partition(",")[0].strip()
    if not row["line_item"]:
        return None
    usd = _number("amount", str(each["amount"]["value"]))
    return BillLine(_moment(row, "start_time"), _text(row, "line_item"), usd=usd)


def _day(row: Row) -> datetime:
    try:
        return datetime.strptime(row["day"].strip(), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"'day' is not a day such as 2026-11-28: '{row['day'][:40]}'") from None


def _moment(row: Row, name: str) -> datetime:
    """A time in ISO 8601, or in unix seconds."""
    text = row[name].strip()
    try:
        if re.fullmatch(r"\d{1,12}", text):
            return datetime.fromtimestamp(int(text), UTC)
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"'{name}' is not a time: '{row[name][:40]}'") from None


def _text(row: Row, name: str) -> str:
    text = row[name].strip()
    if not text:
        needs = ": set the report to include resource ids" if name.endswith("resource_id") else ""
        raise ValueError(f"'{name}' is empty{needs}")
    if len(text) > _MOST_CHARACTERS or not text.isprintable():
        raise ValueError(f"'{name}' is not a name of at most {_MOST_CHARACTERS} printable characters: {text[:40]!a}")
    return text


def _amount(row: Row, name: str) -> Decimal:
    return _number(name, row[name])


def _number(name: str, text: str) -> Decimal:
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise ValueError(f"'{name}' is not a number: '{text[:40]}'")
    if not -_MOST < amount < _MOST:
        raise ValueError(f"'{name}' is not below {_MOST:,}: '{text[:40]}'")
    return amount


def _count(row: Row, name: str) -> int:
    count = _number(name, row[name])
    if count < 0 or count != int(count):
        raise ValueError(f"'{name}' is not a whole number: '{row[name][:40]}'")
    return int(count)


def read_tags(given: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE` as a mapping. Raises: UsageError."""
    tags = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not (key and equals):
            raise click.UsageError(f"--tag '{each}' is not KEY=VALUE.")
        tags[key] = value
    return tags
