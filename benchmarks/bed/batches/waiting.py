"""Batches that wait, or are old: rows as the process `batches` writes them once it has read a file, without the file.

Knows the tables and nothing of what is measured on them.
"""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from random import randbytes
from uuid import UUID

import psycopg

from bed.testbed import Testbed
from headrace.domain.ids import new_id, oldest_id
from plugins.batches.store import PREFIX_CHARS

ENDPOINT = "/v1/chat/completions"
#: Prompts that begin alike, each in this many groups.
GROUPS = 20
_BATCH = """
    INSERT INTO batches (id, app_id, state, endpoint, input_file_id, completion_window, overflow, total, expires_at,
                         in_progress_at)
    SELECT %s, id, 'in_progress', %s, %s, '24h', 'never', %s, now() + interval '1 day', now() FROM apps WHERE name = %s
"""


def put_batches(bed: Testbed, app: str, number: int, lines: int, days: float = 0.0, text_bytes: int = 0) -> None:
    """Let an app have this number of batches in progress, none of whose lines has started.

    Args: days: how long ago they were made. text_bytes: what each prompt ends with, which no compression makes smaller.
    """
    with psycopg.connect(bed.stack.report.database_url.replace("+psycopg", "")) as db:
        for _ in range(number):
            batch_id = new_id() if not days else _id_before(days)
            db.execute(_BATCH.encode(), (batch_id, ENDPOINT, new_id(), lines, app))
            _put_lines(db, batch_id, lines, text_bytes)
            db.commit()
    bed.sql("VACUUM (ANALYZE) batch_lines")


def _id_before(days: float) -> UUID:
    """Makes an id of `days` ago, with the random bits of a new one."""
    first = oldest_id(datetime.now(UTC) - timedelta(days=days))
    return UUID(int=first.int | (new_id().int & (1 << 64) - 1))


def _put_lines(db: psycopg.Connection, batch_id: UUID, lines: int, text_bytes: int) -> None:
    with db.cursor().copy("COPY batch_lines (batch_id, number, custom_id, prefix, body) FROM STDIN") as copy:
        for number in range(1, lines + 1):
            prompt = f"Of template {number % GROUPS}: " + "Say what the words have in common. " * 8 + str(number)
            prompt += b64encode(randbytes(text_bytes * 3 // 4)).decode()
            body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 1}
            copy.write_row((batch_id, number, f"line-{number}", prompt[:PREFIX_CHARS], json.dumps(body)))
