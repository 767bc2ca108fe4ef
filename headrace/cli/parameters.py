"""Checks the values that people type: names, limits, lanes, times and charts. Each function is a click callback."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click

from headrace.domain import operators
from headrace.domain.queues import Lane
from headrace.installed import read_note

NAME_CHARS_LIMIT = 100
#: The largest of Postgres's `integer`.
LIMIT_MAX = 2**31 - 1
#: The word that lifts a limit.
NONE = "none"

_WHOLE = re.compile("[1-9][0-9]{0,9}")
#: An amount that fits the database's numeric(18, 9).
_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def app_name(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """An app's name, of printable characters. Raises: BadParameter."""
    if text is None:
        return None
    name = text.strip()
    if not name:
        raise click.BadParameter("an app needs a name.")
    if len(name) > NAME_CHARS_LIMIT or not name.isprintable():
        raise click.BadParameter(f"an app's name has at most {NAME_CHARS_LIMIT} printable characters.")
    return name


def limit(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | str | None:
    """A limit in whole numbers from 1, or `none`. Raises: BadParameter."""
    if text is None or text == NONE:
        return text
    if not _WHOLE.fullmatch(text) or int(text) > LIMIT_MAX:
        raise click.BadParameter(f"'{text[:40]}' is neither a whole number from 1 to {LIMIT_MAX} nor 'none'.")
    return int(text)


def seconds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | str | None:
    """Whole seconds from 0, or `none`. Raises: BadParameter."""
    return int(text) if text == "0" else limit(_context, _parameter, text)


def share(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | str | None:
    """A share from 0 to less than 1, or `none`. Raises: BadParameter."""
    if text is None or text == NONE:
        return text
    try:
        if 0 <= (given := float(text)) < 1:
            return given
    except ValueError:
        pass
    raise click.BadParameter(f"'{text[:40]}' is neither a share from 0 to less than 1, such as 0.01, nor 'none'.")


def usd(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Decimal | str | None:
    """An amount of USD from 0, or `none`. Raises: BadParameter."""
    if text is None or text == NONE:
        return text
    if not _AMOUNT.fullmatch(text):
        raise click.BadParameter(f"'{text[:40]}' is neither an amount of USD, such as 12.50, nor 'none'.")
    return Decimal(text)


def lanes(_context: click.Context, _parameter: click.Parameter, text: str | None) -> frozenset[Lane] | str | None:
    """Lanes separated by commas, or `none` for no limit. Raises: BadParameter."""
    if text is None or text == NONE:
        return text
    try:
        return frozenset(Lane(word.strip()) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"'{text[:40]}' is not a list of lanes like '{','.join(Lane)}'.") from error


def moment(_context: click.Context, _parameter: click.Parameter, text: str | None) -> datetime | None:
    """An age such as `2h`, or a date with a time, in UTC unless it has an offset. Raises: BadParameter."""
    if text is None:
        return None
    try:
        return operators.read_time(text, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def later(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """The end of a delay such as `2h`, or a date with a time, in UTC unless it has an offset. Raises: BadParameter."""
    if text is None:
        return None
    now = datetime.now(UTC)
    try:
        at = operators.read_time(text, now)
    except ValueError as error:
        raise click.BadParameter(
            f"'{text[:40]}' is neither a delay, such as 90m or 2h, nor a time like 2026-03-01T22:00."
        ) from error
    # A delay is written as an age is, and no time ends in its letters.
    return (now + (now - at) if text[-1] in "smhd" else at).isoformat()


def note(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, str] | None:
    """A plugin and what it has noted. Raises: BadParameter."""
    try:
        return None if text is None else read_note(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def svg(_context: click.Context, _parameter: click.Parameter, file: Path | None) -> Path | None:
    """A file for a chart. Raises: BadParameter: its name promises another format."""
    if file is not None and file.suffix.lower() != ".svg":
        raise click.BadParameter(f"'{file}' does not end in .svg. Charts are drawn as SVG only.")
    return file
