"""Logs as JSON lines on standard error: a constant event name, and facts as fields.

Facts are ids and numbers, never prompts, answers, keys or secrets. A job is named by `job_id`, as `show_id` spells it,
in every process; of many jobs a line has their number and the first ids.
"""

import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from headrace.domain.ids import show_id

#: What every log record carries of its own; anything else came in through `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Loggers that repeat, for each task or request, what ours say once.
_CHATTY = ("celery.app.trace", "celery.worker.strategy", "alembic.runtime.migration", "httpx2")

#: Ids of jobs in one line.
NAMED_JOBS = 20


def named(job_ids: Sequence[UUID]) -> dict[str, Any]:
    """What a line says of many jobs: how many they are, and the ids of the first `NAMED_JOBS`."""
    return {"jobs": len(job_ids), "job_ids": [show_id(job_id) for job_id in job_ids[:NAMED_JOBS]]}


class JsonFormatter(logging.Formatter):
    """One record, one line; a record with `each`, a sequence of fields, has a line for each of them.

    Such lines are written together. A write releases the GIL, and in a process with many threads that run, taking it
    back costs 20 times what the line does (measured: 180 us of a submit).
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON. What JSON cannot hold is shown as text."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        entries = line.pop("each", None)
        if entries is None:
            return json.dumps(line, default=str)
        shared = json.dumps(line, default=str)[:-1]
        return "\n".join(f"{shared}, {json.dumps(entry)[1:]}" for entry in entries)


def configure(level: str = "INFO") -> None:
    """Send every log of this process to standard error as JSON lines. Safe to call twice."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
