"""Users by the clock: each question is submitted when it is due, whatever became of the one before. Knows HTTP."""

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bed.savings.fleet import MAX_TOKENS, Fleet
from bed.savings.questions import Question
from bed.testbed import bearer

#: Seconds from one question of a user to the next.
EVERY_S = 60.0
#: Requests under way at once.
THREADS = 48
#: Seconds within which a job must start: otherwise it expires, or is refused if that is known.
MAX_WAIT_S = 60
TIMEOUT_S = 60.0
RULES = """\
You answer questions for the staff of a shop. Use plain words and short sentences, and name each step in the order in
which it is done. If a step needs a tool, say which one. Begin with the result that the reader will see at the end.
Write for a reader who does this for the first time, and leave out what a reader of that kind can see for himself."""
#: What the app says again before each conversation: a fifth of the whole prompt.
BOILERPLATE = RULES.splitlines()[1]


def conversation(text: str) -> list[dict[str, str]]:
    """What is sent: the app's rules, its opening, which repeats some of them, and the user's question."""
    return [
        {"role": "system", "content": RULES},
        {"role": "user", "content": f"I have a question. {BOILERPLATE}"},
        {"role": "assistant", "content": "Of course. What is it?"},
        {"role": "user", "content": text},
    ]


@dataclass
class Submitted:
    """What was asked. Attributes: began, ended: on the machine's clock, which is Postgres's too."""

    began: float
    ended: float = 0.0
    late_s: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def refused(self) -> int:
        """Requests that were not accepted."""
        return self.statuses.total() - self.statuses[http.HTTPStatus.ACCEPTED]


class Users:
    """Users of one app. Safe for one run at a time."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self._address = urlsplit(fleet.bed.url)
        self._headers = {**bearer(fleet.bed.api_key), "Content-Type": "application/json"}
        self._model, self._chance = fleet.model, random.Random(seed)

    def ask(self, questions: Sequence[Question], per_s: float) -> Submitted:
        """Submit these at this mean rate, as a Poisson process; returns once each is answered by the door."""
        gaps = (self._chance.expovariate(per_s) for _ in questions)
        due = list(zip(itertools.accumulate(gaps), questions, strict=True))
        submitted, lock, began = Submitted(time.time()), threading.Lock(), time.monotonic()
        left = iter(due)

        def work() -> None:
            connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=TIMEOUT_S)
            while True:
                with lock:
                    found = next(left, None)
                if found is None:
                    connection.close()
                    return
                at_s, question = found
                late_s = time.monotonic() - began - at_s
                if late_s < 0:
                    time.sleep(-late_s)
                status = self._submit(connection, question)
                with lock:
                    submitted.statuses[status] += 1
                    submitted.late_s = max(submitted.late_s, late_s)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        submitted.ended = time.time()
        return submitted

    def _submit(self, connection: http.client.HTTPConnection, question: Question) -> int:
        """The status; 0 for a connection that broke."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": conversation(question.text),
            "max_tokens": MAX_TOKENS,
            "max_wait": MAX_WAIT_S,
            "temperature": 0,
            "metadata": {"task": "simple" if question.is_simple else "hard", "kind": question.kind},
        }
        try:
            connection.request("POST", "/v1/jobs", json.dumps(body), self._headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0
        return answer.status
