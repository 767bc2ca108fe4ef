"""A batch from end to end, by the unchanged SDK, while its processes are killed: each line once, in one file."""

import io
import json
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import openai

from headrace.stack.loopback import Receiver

LINES = 900
#: Every line of this remainder asks for what its endpoint refuses.
REFUSED = 50
#: Killed once each, in this order, as lines end.
KILLED = ("web", "control", "plugins", "gpu")
#: Answers of 0.16 s in 16 slots: at most 100 lines a second, so that some are left when the last process is killed.
SETTINGS = {
    "pools__chat__max_running": "16",
    "simulator__decode_tokens_per_s": "50",
    "simulator__output_tokens": "8",
    "lease_s": "3",
    "batches__lease_s": "2",
}


def file_of(lines: int) -> bytes:
    """The file of a batch of chat completions."""
    every = []
    for no in range(lines):
        body: dict[str, Any] = {"messages": [{"role": "user", "content": f"Number {no}?"}], "max_tokens": 8}
        body |= {"temperature": 9} if no % REFUSED == 0 else {}
        line = {"custom_id": f"line-{no}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        every.append(json.dumps(line))
    return "\n".join(every).encode()


def results(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a file of results."""
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def billed(system: Any, batch_id: str) -> dict[str, Any]:
    """What the jobs of a batch are, and what they cost by their rows and by the ledger."""
    [found] = system.sql(
        """SELECT count(*) AS jobs, sum(usd) AS usd,
                  (SELECT count(*) FROM batch_lines
                   WHERE job_id IN (SELECT id FROM jobs WHERE notes->>'batches' = %s)) AS lines,
                  count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                  (SELECT sum(l.usd) FROM ledger l JOIN jobs j ON j.id = l.job_id
                   WHERE j.notes->>'batches' = %s AND l.kind <> 'waste') AS ledger_usd
           FROM jobs WHERE notes->>'batches' = %s""",
        *[batch_id] * 3,
    )
    return dict(found)


def test_each_line_is_answered_once_and_is_in_one_file_although_every_process_is_killed(
    start: Callable[..., Any], wait_until: Callable[..., None], receiver: Receiver
) -> None:
    system = start(also=["plugins", "webhooks"], **SETTINGS)
    report = system.stack.report
    # The SDK's own retries bridge the restart of `web`.
    client = openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, max_retries=8)
    upload = client.files.create(file=("lines.jsonl", io.BytesIO(file_of(LINES))), purpose="batch")
    batch = client.batches.create(
        input_file_id=upload.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"job": {"webhook": receiver.url}},
    )

    def ended() -> int:
        """Lines that have ended, by Postgres: `web` is killed too."""
        [row] = system.sql("SELECT completed + failed AS ended FROM batches")
        return int(row["ended"])

    pids = {}
    for no, name in enumerate(KILLED, start=1):
        wait_until(lambda least=no * LINES // 8: ended() >= least, f"{no} eighths of the lines")
        assert ended() < LINES
        pids[name] = system.stack.kill(name)
    for name, pid in pids.items():
        system.restarted(name, pid)
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", "the end of the batch")

    last = client.batches.retrieve(batch.id)
    answered, refused = results(client, last.output_file_id), results(client, last.error_file_id)
    assert Counter(each["custom_id"] for each in answered + refused) == {f"line-{no}": 1 for no in range(LINES)}
    assert {each["custom_id"] for each in refused} == {f"line-{no}" for no in range(0, LINES, REFUSED)}
    assert {each["response"]["status_code"] for each in answered} == {200}
    assert {(each["response"]["status_code"], each["error"]) for each in refused} == {(400, None)}
    counts = last.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (LINES, len(answered), len(refused))
    bill = billed(system, batch.id)
    assert bill["jobs"] == bill["lines"] == bill["succeeded"] == len(answered)
    assert Decimal(last.model_dump()["job"]["usd"]) == bill["usd"] == bill["ledger_usd"] > 0

    [webhook] = receiver.wait_for(1, 20)
    [app] = system.sql("SELECT webhook_secret FROM apps WHERE name = 'development'")
    event = client.webhooks.unwrap(webhook.body, webhook.headers, secret=app["webhook_secret"])
    client.close()
    assert event.type == "batch.completed"
    assert event.data.id == batch.id
