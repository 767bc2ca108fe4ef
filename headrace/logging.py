"""Logs as JSON lines on standard error: a constant event name, and facts as fields.

Facts are ids and numbers, never prompts, answers, keys or secrets. Every process names a job by `job_id`, in the form
of `show_id`. A line about many jobs has their number and the first ids.
"""

import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from headrace.domain.ids import show_id

#: The attributes of every log record; any other attribute came through `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Made once: `json.dumps` with a default would make an encoder for each line.
_encode = json.JSONEncoder(default=str).encode

#: Loggers that write, for each task or request, what Headrace's own lines already say.
_CHATTY = ("celery.app.trace", "celery.worker.strategy", "alembic.runtime.migration", "httpx2")

#: The most job ids in one line.
NAMED_JOBS = 20


def named(job_ids: Sequence[UUID]) -> dict[str, Any]:
    """The fields of a line about many jobs: their number, and the ids of the first `NAMED_JOBS`."""
    return {"jobs": len(job_ids), "job_ids": [show_id(job_id) for job_id in job_ids[:NAMED_JOBS]]}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line; a record with `each`, a sequence of field sets, gives one line per set.

    These lines are written together, because a write releases the GIL. In a process with many running threads, getting
    the GIL back costs 20 times as much as the line (measured: 180 us of a submit).
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON. Values that JSON cannot encode are written as text."""
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
            return _encode(line)
        shared = _encode(line)[:-1]
        return "\n".join(f"{shared}, {_encode(entry)[1:]}" for entry in entries)


def configure(level: str = "INFO") -> None:
    """Send every log of this process to standard error as JSON lines. Safe to call twice."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
