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


@dataclass(slots=True)
class Told:
    """What the good apps were told, together.

    Attributes:
        answered_s: from the submit to the answer, of each job that was answered.
        refused: of what was not answered, how often which status came; 0: the connection broke.
        job_ids: of jobs with a webhook.
    """

    answered_s: list[float] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    job_ids: list[str] = field(default_factory=list)


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class GoodApps:
    """Threads, one for each app. Every other request is a job with a webhook, polled; the others are synchronous."""

    def __init__(self, url: str, keys: Sequence[str], every_s: float, webhook_url: str) -> None:
        address = urlsplit(url)
        self._host, self._port, self._webhook_url = address.hostname or "", address.port, webhook_url
        self._every_s = every_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._told = Told()
        self._threads = [threading.Thread(target=self._run, args=(each, key)) for each, key in enumerate(keys)]
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

    def _call(self, method: str, path: str, key: str, body: object, wanted: int) -> dict[str, object]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            with connection.getresponse() as answer:
                read = answer.read()
            if answer.status != wanted:
                raise _Refused(answer.status)
            found: dict[str, object] = json.loads(read)
            return found
        except (OSError, http.client.HTTPException) as error:
            raise _Refused(0) from error
        finally:
            connection.close()
