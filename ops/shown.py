"""How the templates show values: times, amounts, ages and addresses."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from flask import Flask, url_for
from markupsafe import Markup

from headrace.domain.ids import show_id
from headrace.policies.webhooks import origin
from headrace.store.jobs.overview import attempt_number
from ops.hooks import PagesPart, of_plugins

NONE = "-"


def register(app: Flask, added: Mapping[str, PagesPart]) -> None:
    """Give the templates these functions as filters. Args: added: the parts of plugins, whose pages are linked."""
    app.jinja_env.globals["links_of_plugins"] = [part.link for part in added.values() if part.link is not None]
    for show in (time, minute, fact, number, usd, seconds, percent, job_name, job_link, note_link, value):
        app.add_template_filter(show)
    app.add_template_filter(origin)
    app.add_template_filter(attempt_number)


def time(at: datetime | None) -> Markup | str:
    """A time in UTC, to the second."""
    if at is None:
        return NONE
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}")


def minute(at: datetime | None) -> Markup | str:
    """A time in UTC without its year and seconds, where little room is."""
    if at is None:
        return NONE
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), f"{at:%m-%d %H:%M}")


def number(amount: float | Decimal | None) -> str:
    """A number with separators; of a fraction, one decimal."""
    if amount is None:
        return NONE
    return f"{amount:,.0f}" if amount == int(amount) else f"{amount:,.1f}"


def usd(amount: Decimal | None) -> str:
    """An amount of USD: cents; below a dollar, up to six decimals where cents would round it."""
    if amount is None:
        return NONE
    cents = round(amount, 2)
    if cents == amount or abs(amount) >= 1:
        return f"{cents:,.2f}"
    shown = round(amount, 6).normalize()
    return f"{shown:f}" if shown or amount < 0 else "<0.000001"


def seconds(length: float | timedelta | None) -> str:
    """A length of time in one unit."""
    if length is None:
        return NONE
    total = length.total_seconds() if isinstance(length, timedelta) else float(length)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if total >= 2 * size:
            return f"{total / size:,.0f} {unit}"
    return f"{total:,.0f} s" if total >= 10 else f"{total:,.1f} s"


def percent(share: float | Decimal | None) -> str:
    return NONE if share is None else f"{share:.0%}"


def job_name(job_id: UUID) -> str:
    """A job's id as apps see it."""
    return show_id(job_id)


def job_link(job_id: UUID | None) -> Markup | str:
    """A job's id as a link to its page."""
    if job_id is None:
        return NONE
    shown = show_id(job_id)
    return Markup('<a class="id" href="{}">{}</a>').format(url_for("jobs.show", job_id=shown), shown)


def note_link(note: Any, plugin: str) -> Markup | str:
    """What a plugin has noted of a job, as a link where the plugin has a page for it."""
    part = of_plugins().get(plugin)
    if part is None or part.note_url is None:
        return f"{plugin}: {json.dumps(note)}"
    return Markup('{} <a class="id" href="{}">{}</a>').format(plugin, part.note_url(note), note)


def fact(text: Any, name: str) -> Any:
    """What a timeline knows by this name; a time without its fractions of a second, an amount without its zeros."""
    if name == "usd" or name.endswith("_usd"):
        return f"{Decimal(text).normalize():f}"
    return str(text)[:19].replace("T", " ") if name.endswith(("_at", "_by")) else text


def value(any_: Any) -> Any:
    match any_:
        case None | "":
            return NONE
        case bool():
            return "yes" if any_ else "no"
        case datetime():
            return time(any_)
        case Decimal():
            return usd(any_)
        case float():
            return f"{any_:,.3f}".rstrip("0").rstrip(".")
        case int():
            return f"{any_:,}"
        case _:
            return any_
