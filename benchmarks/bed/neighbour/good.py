"""The good apps: each sends by its own clock, waits for its answers, and notes how long they took."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

#: Tokens of one answer.
ANSWER_TOKENS = 64
TIMEOUT_S = 75.0
OK, ACCEPTED = 200, 202
#: Apps that send batches beside their requests, the seconds between two of one app, and the lines of each. One that has
#: not ended after `TIMEOUT_S` counts as if it had.
BATCH_APPS, BATCH_EVERY_S, BATCH_LINES = 5, 5.0, 3
#: A file's form.
FORM_TYPE = "multipart/form-data; boundary=b0undary"
FORM = (
    '--b0undary\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    '--b0undary\r\nContent-Disposition: form-data; name="file"; filename="lines.jsonl"\r\n\r\n{}\r\n--b0undary--\r\n'
)


@dataclass(slots=True)
class Told:
    """What the good apps were told, together.

    Attributes:
        answered_s: from the submit to the answer, of each job that was answered.
        refused: of what was not answered, how often which status came; 0: the connection broke.
        job_ids: of jobs with a webhook.
        batches_s: from the upload of a batch's file to its results, of each batch.
    """

    answered_s: list[float] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    job_ids: list[str] = field(default_factory=list)
    batches_s: list[float] = field(default_factory=list)


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class GoodApps:
    """Threads, one for each app. Every other request is a job with a webhook, polled; the others are synchronous.

    Some apps have a second one, for batches.
    """

    def __init__(self, url: str, keys: Sequence[str], every_s: float, webhook_url: str) -> None:
        address = urlsplit(url)
        self._host, self._port, self._webhook_url = address.hostname or "", address.port, webhook_url
        self._every_s = every_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._told = Told()
        self._threads = [
            *(threading.Thread(target=self._run, args=(each, key)) for each, key in enumerate(keys)),
            *(threading.Thread(target=self._run_batches, args=each) for each in enumerate(keys[:BATCH_APPS])),
        ]
        for thread in self._threads:
            thread.start()

    def so_far(self) -> tuple[int, int]:
        """How many were answered, and how many refused."""
        return len(self._told.answered_s), self._told.refused.total()

    def forget(self) -> None:
        """Count from now on."""
        with self._lock:
            self._told = Told()

    def end(self) -> Told:
        """Send no more, and wait for what is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self._told

    def _run(self, number: int, key: str) -> None:
        clock = random.Random(number)
        due_s = time.monotonic() + clock.random() * self._every_s
        turn = number
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            told, began = self._told, time.monotonic()
            try:
                job_id = self._job(key) if turn % 2 else self._chat(key)
            except _Refused as error:
                with self._lock:
                    told.refused[error.status] += 1
            else:
                with self._lock:
                    told.answered_s.append(time.monotonic() - began)
                    told.job_ids += [job_id] if job_id else []
            turn += 1
            due_s = max(time.monotonic(), due_s + self._every_s * clock.uniform(0.8, 1.2))

    def _job(self, key: str) -> str:
        asked = {"prompt": "Hi", "max_tokens": ANSWER_TOKENS, "lane": "normal", "webhook": self._webhook_url}
        job_id = str(self._call("POST", "/v1/jobs", key, asked, ACCEPTED)["id"])
        while (job := self._call("GET", f"/v1/jobs/{job_id}?wait=30", key, None, OK))["status"] in (
            "queued",
            "running",
            "waiting",
        ):
            time.sleep(0.05)
        if job["status"] != "succeeded":
            raise _Refused(-1)
        return job_id.rpartition("_")[2]

    def _chat(self, key: str) -> None:
        asked = {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": ANSWER_TOKENS}
        self._call("POST", "/v1/chat/completions", key, asked, OK)

    def _run_batches(self, number: int, key: str) -> None:
        due_s = time.monotonic() + BATCH_EVERY_S * number / BATCH_APPS
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            told, began = self._told, time.monotonic()
            try:
                self._batch(key)
            except _Refused as error:
                with self._lock:
                    told.refused[error.status] += 1
            else:
                with self._lock:
                    told.batches_s.append(time.monotonic() - began)
            due_s = max(time.monotonic(), due_s + BATCH_EVERY_S)

    def _batch(self, key: str) -> None:
        """Upload a file, have it run, and read the answers."""
        until, body = time.monotonic() + TIMEOUT_S, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        lines = "\n".join(json.dumps({"custom_id": str(each), **line}) for each in range(BATCH_LINES))
        file = FORM.format(lines).encode()
        file_id = json.loads(self._send("POST", "/v1/files", key, file, OK, FORM_TYPE))["id"]
        asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = self._call("POST", "/v1/batches", key, asked, OK)
        while batch["status"] in ("validating", "in_progress", "finalizing") and time.monotonic() < until:
            time.sleep(0.1)
            batch = self._call("GET", f"/v1/batches/{batch['id']}", key, None, OK)
        if batch["status"] == "completed":
            self._send("GET", f"/v1/files/{batch['output_file_id']}/content", key, None, OK)
        elif time.monotonic() < until:
            raise _Refused(-1)

    def _call(self, method: str, path: str, key: str, body: object, wanted: int) -> dict[str, object]:
        raw = None if body is None else json.dumps(body).encode()
        found: dict[str, object] = json.loads(self._send(method, path, key, raw, wanted))
        return found

    def _send(
        self, method: str, path: str, key: str, body: bytes | None, wanted: int, kind: str = "application/json"
    ) -> bytes:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {key}", "Content-Type": kind})
            with connection.getresponse() as answer:
                read = answer.read()
            if answer.status != wanted:
                raise _Refused(answer.status)
            return read
        except (OSError, http.client.HTTPException) as error:
            raise _Refused(0) from error
        finally:
            connection.close()
