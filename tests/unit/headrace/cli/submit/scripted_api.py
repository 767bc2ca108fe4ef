"""An API that answers the lines of a file as a test says."""

import threading
import time
from typing import Any

from headrace.cli.api import ApiRefused, NoAnswer, TryLater


class ScriptedApi:
    """Answers each prompt with itself in capitals.

    Attributes:
        refusals: by prompt, what its submits meet first, one after the other.
        ends: by prompt, the error with which its job ends.
        at_once: the most jobs that were under way at once.
        held: jobs end once it is set.
    """

    def __init__(self) -> None:
        self.refusals: dict[str, list[ApiRefused | NoAnswer]] = {}
        self.ends: dict[str, dict[str, str]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.submits: list[tuple[str, float]] = []
        self.bodies: dict[str, dict[str, Any]] = {}
        self.at_once, self._open = 0, 0
        self.held = threading.Event()
        self.held.set()
        self._turn = threading.Lock()

    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        if method == "POST":
            return self._submitted(arguments["json"], arguments["headers"]["Idempotency-Key"])
        job = self.jobs[path.removeprefix("/v1/jobs/")]
        if not self.held.wait(0.05):
            return {**job, "status": "running"}
        with self._turn:
            self._open -= 1
        return job

    def _submitted(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        prompt = body["prompt"]
        with self._turn:
            self.submits.append((prompt, time.monotonic()))
            if waiting := self.refusals.get(prompt):
                raise waiting.pop(0)
            self._open += 1
            self.at_once = max(self.at_once, self._open)
            self.bodies[key] = body
            error = self.ends.get(prompt)
            status = "succeeded"
            if error:
                status = error["code"] if error["code"] in ("expired", "cancelled") else "failed"
            text = None if error else prompt.upper()
            shown = None if error and error["code"] == "cancelled" else error
            usage, cost = {"total_tokens": 7}, {"usd": "0.000001"}
            job = {"id": key, "status": status, "text": text, "error": shown, "usage": usage, "cost": cost}
            if key in self.jobs:
                return self.jobs[key]
            self.jobs[key] = job
            return {**job, "status": "queued"}


def full(after_s: float) -> TryLater:
    return TryLater(f"Queue chat.normal is full. Retry after {after_s} s.", after_s, code="queue_full")
