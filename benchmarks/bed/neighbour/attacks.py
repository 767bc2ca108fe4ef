"""What the neighbour does, by the clock and in a process of its own: hostile, or as many harmless requests.

`python -m bed.neighbour.attacks` reads its orders as JSON from standard input, a line, prepares what it needs, prints
`ready` and goes on until its input is closed. Then it prints what was answered.
"""

import base64
import http.client
import json
import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from typing import Any

from bed.neighbour.heads import Heads
from bed.neighbour.lines import Lines
from bed.neighbour.sending import TIMEOUT_S, Held, Orders, Sender, chat, job

#: The operators' page without a login.
LOGIN = "/ops/login"
#: Requests of one kind under way at once; what is due while all are is sent later.
AT_ONCE = 40
BODY_BYTES = 8 * 2**20
#: What the harmless jobs ask for, and how long a hostile job's answer may be.
FEW_TOKENS, MOST_TOKENS = 16, 8192
#: After so long the caller of a synchronous request hangs up.
ABANDON_S = 0.1
#: What a text costs a regular expression that backtracks doubles with each of these characters.
PATTERN_CHARS = 30
#: What a schema of this many levels costs doubles with each of them.
SCHEMA_LEVELS = 28
#: Room for the whole answer: one that is cut off is not judged by its schema.
SCHEMA_TOKENS = 64
#: Values in a body that is wrong: 60 KB, which take 12 ms to read and to check before the last of them is known.
WRONG_VALUES = 15_000


class Neighbour(Sender):
    """Single requests, hooks and logins."""

    def __init__(self, orders: Orders) -> None:
        """Send nothing yet."""
        super().__init__(orders)
        # Letters at random: a tokenizer has a token for hardly any of them together.
        letters = base64.b32encode(os.urandom(orders.long_chars))[: orders.long_chars].decode()
        self._long = job(letters, FEW_TOKENS)
        self._huge = b'{"messages":[' + b"{}," * (BODY_BYTES // 3 - 10) + b"{}]}"
        self._wrong = job("Hi", FEW_TOKENS, no_such_field=[[]] * WRONG_VALUES)
        self._silent = Held(orders.at_once["silent_logins"])
        self._number = 0

    def kinds(self) -> dict[str, Callable[[], int]]:
        """What it does, by name."""
        return {
            "long_texts": self.long_text,
            "huge_bodies": self.huge_body,
            "dripping_receivers": self.dripping_receiver,
            "abandoned_waits": self.abandoned_wait,
            "random_keys": self.random_key,
            "token_cap": self.token_cap,
            "schemas": self.schema,
            "silent_logins": self.silent_login,
            "login_floods": self.login,
            "wrong_bodies": self.wrong_body,
            "readiness": self.readiness,
        }

    def long_text(self) -> int:
        """A prompt that is too long, and short enough that it has to be counted."""
        return self._post("/v1/jobs", self._long if self._orders.is_hostile else job("Hi", FEW_TOKENS))

    def huge_body(self) -> int:
        """As many values as a body has room for."""
        return self._post("/v1/jobs", self._huge if self._orders.is_hostile else job("Hi", FEW_TOKENS))

    def dripping_receiver(self) -> int:
        """A job whose receiver takes for ever to answer."""
        url = self._orders.drip_url if self._orders.is_hostile else self._orders.good_url
        return self._post("/v1/jobs", job("Hi", 1, webhook=url))

    def abandoned_wait(self) -> int:
        """A synchronous call whose caller hangs up, for a job that takes long to be answered."""
        if not self._orders.is_hostile:
            return self._post("/v1/chat/completions", chat(FEW_TOKENS, "priority"))
        body = chat(self._orders.answer_tokens, "flex")
        with socket.create_connection((self._orders.host, self._orders.port), TIMEOUT_S) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._orders.key}\r\n"
            connection.sendall(
                f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            time.sleep(ABANDON_S)
        return 0

    def random_key(self) -> int:
        """A key that was made up, in one of the two forms that keys have."""
        self._number += 1
        plain = f"hr-{base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip('=')}"
        made_up = plain if self._number % 2 else f"{plain}AAAAAA"
        return self._send("GET", "/v1/models", b"", made_up if self._orders.is_hostile else self._orders.key)

    def token_cap(self) -> int:
        """A job with a long answer, which says that it may become very much longer."""
        return self._post("/v1/jobs", job("Hi", MOST_TOKENS if self._orders.is_hostile else self._orders.answer_tokens))

    def schema(self) -> int:
        """A job of a cascade whose schema is dear to judge: by its pattern and by its references, in turn.

        In a lane of its own, so that it finds a place and runs.
        """
        self._number += 1
        hostile = BACKTRACKING if self._number % 2 else _branching(SCHEMA_LEVELS)
        schema = hostile if self._orders.is_hostile else {"type": "string", "pattern": f"^a{{{PATTERN_CHARS}}}$"}
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        asked = {"model": "auto", "response_format": form}
        return self._post("/v1/jobs", job("Hi", SCHEMA_TOKENS, lane="high", max_wait=20, **asked))

    def silent_login(self) -> int:
        """A login whose body never comes. As many as came at once are kept open; the oldest goes for a new one."""
        if not self._orders.is_hostile:
            return self._send("GET", LOGIN, b"", "", is_login=True)
        head = f"POST {LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        address = (self._orders.login_host, self._orders.login_port)
        self._silent.open(*address, f"{head}Content-Length: 100\r\n\r\n".encode())
        return 0

    def login(self) -> int:
        """A login with a name that was made up; the form is read once for its token."""
        if not self._orders.is_hostile:
            return self._send("GET", LOGIN, b"", "", is_login=True)
        self._number += 1
        cookie, token = self._form()
        form = f"csrf_token={token}&name=invented{self._number}&password=wrong"
        return self._send("POST", LOGIN, form.encode(), "", is_login=True, cookie=cookie)

    @cache  # noqa: B019 - one neighbour lives as long as the process
    def _form(self) -> tuple[str, str]:
        """A session's cookie and its token against forged forms."""
        with closing(
            http.client.HTTPConnection(self._orders.login_host, self._orders.login_port, timeout=TIMEOUT_S)
        ) as c:
            c.request("GET", LOGIN)
            answer = c.getresponse()
            found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', answer.read().decode())
            assert found is not None, answer.status
            return (answer.headers["Set-Cookie"] or "").partition(";")[0], found[1]

    def wrong_body(self) -> int:
        """A request that ends in 400, after all of it was read."""
        if not self._orders.is_hostile:
            return self._send("GET", "/v1/models", b"", self._orders.key)
        return self._post("/v1/jobs", self._wrong)

    def readiness(self) -> int:
        """What a load balancer asks, without a key."""
        return self._send("GET", "/readyz" if self._orders.is_hostile else "/healthz", b"", "")


#: The first pattern backtracks over what the second one makes the model write.
BACKTRACKING: Mapping[str, Any] = {
    "allOf": [
        {"type": "string", "pattern": "^((a+)+b|a+)$"},
        {"type": "string", "pattern": f"^a{{{PATTERN_CHARS}}}$"},
    ]
}


def _branching(levels: int) -> dict[str, Any]:
    """A schema of two answers: a judge finds only at the end of all branches that the second is not the first."""
    definitions: dict[str, Any] = {
        f"level{each}": {"anyOf": [{"$ref": f"#/$defs/level{each + 1}"}] * 2} for each in range(levels)
    }
    definitions[f"level{levels}"] = {"enum": ["first"]}
    return {"anyOf": [{"$ref": "#/$defs/level0"}, {"enum": ["second"]}], "$defs": definitions}


def repeat(send: Callable[[], int], rate: float, statuses: Counter[int], stop: threading.Event, at_once: int) -> None:
    """Send by the clock until told to stop; `at_once` first."""
    began, sent = time.monotonic(), 0
    with ThreadPoolExecutor(AT_ONCE) as threads:
        free = threading.Semaphore(AT_ONCE)

        def one() -> None:
            try:
                statuses[send()] += 1
            finally:
                free.release()

        while not stop.is_set():
            due_s = began + max(0, sent - at_once) / rate
            if stop.wait(max(0.0, due_s - time.monotonic())):
                break
            free.acquire()
            threads.submit(one)
            sent += 1


def main() -> None:
    orders = Orders(**json.loads(sys.stdin.readline()))
    lines, stop = Lines(orders), threading.Event()
    lines.prepare()
    kinds = {**Neighbour(orders).kinds(), **Heads(orders).kinds(), **lines.kinds()}
    statuses = {name: Counter[int]() for name in kinds}
    began = time.monotonic()
    threads = [
        threading.Thread(
            target=repeat,
            args=(send, orders.rates[name], statuses[name], stop, orders.at_once.get(name, 0)),
        )
        for name, send in kinds.items()
        if orders.rates[name] > 0
    ]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    seconds = time.monotonic() - began
    counted = {name: dict(counts) for name, counts in statuses.items()}
    print(json.dumps({"seconds": seconds, "statuses": counted}), flush=True)
    os._exit(0)  # What is under way may take a minute, and is of no more interest.


if __name__ == "__main__":
    main()
