"""What `headrace scale --json` prints of one pool."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from headrace.cli.scale.overview import PoolOverview
from headrace.policies.scaling.calendar import Occurrence
from headrace.policies.scaling.horizon import Horizon
from headrace.store.fleet.decisions import MadeDecision


def as_json(found: PoolOverview) -> dict[str, Any]:
    """All of it, without the inputs of its decisions."""
    seen = found.seen
    rate = None if found.inputs is None else found.inputs.hosts.tokens_per_s
    data = {
        "pool": found.pool,
        "now": found.now,
        "seen": None if seen is None else {**asdict(seen), "age_s": found.age_s},
        "is_stale": found.is_stale,
        "stale_after_s": found.stale_after_s,
        "decision": _decision(found.decision),
        "failing": _decision(found.failing),
        "hosts": {**asdict(found.hosts), "usd_per_hour": found.usd_per_hour, "unpriced": found.unpriced},
        "host_tokens_per_s": rate,
        "past": [asdict(span) for span in found.past],
        "ahead": None if found.ahead is None else _ahead(found.ahead),
        "decisions": [asdict(run) for run in found.runs],
    }
    return {name: _plain(value) for name, value in data.items()}


def _decision(made: MadeDecision | None) -> dict[str, Any] | None:
    if made is None:
        return None
    record = asdict(made.record)
    del record["inputs"]
    fields = {"applied_at": made.applied_at, "tries": made.tries, "error": made.error}
    return {"id": made.id, "at": made.at, **record, **fields}


def _ahead(ahead: Horizon) -> dict[str, Any]:
    return {
        "points": [asdict(point) for point in ahead.points],
        "events": [_event(event) for event in ahead.events],
        "season_until": ahead.season_until,
        "unknown": list(ahead.unknown),
    }


def _event(each: Occurrence) -> dict[str, Any]:
    event = each.event
    times = {"starts_at": each.starts_at, "ends_at": each.ends_at}
    return {"name": event.name, **times, "jobs_per_s": event.jobs_per_s, "hosts": event.hosts}


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return str(value)
        case Mapping():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case _:
            return value
