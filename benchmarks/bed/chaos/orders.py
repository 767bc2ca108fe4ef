"""The client: posts orders until each is accepted, asks until each has ended, and writes down what it was told.

It trusts no process: the verdict compares what it was told with what Postgres has. Knows HTTP and nothing behind it.
"""

import hashlib
import http.client
import json
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

#: Silence after which a call counts as hung: more than the product's own time-outs add up to.
HUNG_S = 45.0
#: The longest pause before a call is made again, in seconds.
PATIENCE_S = 2.0
POSTERS, POLLERS = 32, 12
POLL_S = 4
OVERFLOW_SHARE, WEBHOOK_SHARE = 0.1, 0.1
#: Most jobs start late after an outage; none may expire.
MAX_WAIT_S = 7200
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})
#: What the client wants of a job: its answer, its cancel as soon as it is accepted, or its erasure as soon as it ends.
Wish = Literal["answer", "cancel", "erase"]


@dataclass(slots=True)
class Order:
    """One job that is wanted, and what became of it.

    Attributes:
        due_s: when it is to be posted, in seconds from the beginning.
        posted_at: when the last try to post it began, on the machine's clock.
        statuses: of each try to post it; 0: the connection broke, -1: no answer in `HUNG_S`.
        depth: of its queue, as the 202 said.
        seen: the end that the API told.
        is_poison: its prompt kills the engine, and it has to fail.
        is_erased: what the client wanted erased is.
    """

    number: int
    body: dict[str, Any]
    due_s: float
    is_poison: bool = False
    wish: Wish = "answer"
    statuses: list[int] = field(default_factory=list)
    longest_s: float = 0.0
    posted_at: float = 0.0
    job_id: str | None = None
    depth: int | None = None
    accepted_at: float | None = None
    seen: str | None = None
    is_erased: bool = False

    @property
    def prompt(self) -> str:
        """What is asked."""
        return str(self.body["prompt"])

    @property
    def fingerprint(self) -> str:
        """What the right answer has in it."""
        return hashlib.sha256(f"user: {self.prompt}".encode()).hexdigest()


def make_orders(number: int, seconds: float, seed: int, webhook_url: str) -> list[Order]:
    """Orders over a time: most steadily, one in five in bursts that fill the queues."""
    chance = random.Random(seed)
    bursts = [chance.uniform(0, seconds) for _ in range(max(1, int(seconds / 30)))]
    times = sorted(
        chance.choice(bursts) if chance.random() < 0.2 else chance.uniform(0, seconds) for _ in range(number)
    )
    return [Order(each, _body(each, chance, webhook_url), due_s) for each, due_s in enumerate(times)]


def _body(number: int, chance: random.Random, webhook_url: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": f"Order {number} of {chance.getrandbits(64):x}?",
        "max_tokens": chance.choice((8, 16, 24)),
        "lane": chance.choice(("high", "normal", "low", "batch")),
        "max_wait": MAX_WAIT_S,
        "metadata": {"order": str(number)},
        "overflow": "only" if chance.random() < OVERFLOW_SHARE else "never",
    }
    if chance.random() < WEBHOOK_SHARE:
        body["webhook"] = webhook_url
    return body


class Client:
    """Posts and polls in threads of its own between `begin` and `end`.

    Attributes:
        statuses: of all tries to post an order; see `Order`.
        complaints: answers that no outage excuses, such as a 500, or a 503 that does not say when to come back.
    """

    def __init__(self, url: str, api_key: str, orders: Sequence[Order], *, has_keys: bool) -> None:
        """Plan it. Args: has_keys: False to post without Idempotency-Keys."""
        address = urlsplit(url)
        self._address = address.hostname or "", address.port or 80
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self._has_keys = has_keys
        self.orders = list(orders)
        self._due: queue.PriorityQueue[tuple[float, int]] = queue.PriorityQueue()
        self._accepted: queue.Queue[Order] = queue.Queue()
        self._stopping = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.complaints: list[str] = []
        self._lock = threading.Lock()
        self._began = 0.0
        self._threads = [threading.Thread(target=self._post_until_ended, daemon=True) for _ in range(POSTERS)]
        self._threads += [threading.Thread(target=self._poll_until_ended, daemon=True) for _ in range(POLLERS)]

    def begin(self) -> None:
        """Start; orders are posted by the clock from now on."""
        self._began = time.monotonic()
        for order in self.orders:
            self._due.put((order.due_s, order.number))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop, whatever is left."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(HUNG_S)

    def add(self, prompt: str) -> None:
        """Order one job that kills the engine, now. No prompt is used twice: the API refuses one that has killed."""
        number = len(self.orders)
        body = {
            "prompt": f"{prompt} (Order {number})",
            "max_tokens": 8,
            "max_wait": MAX_WAIT_S,
            "metadata": {"order": str(number)},
        }
        with self._lock:
            self.orders.append(Order(number, {**body, "overflow": "never"}, 0.0, is_poison=True))
        self._due.put((0.0, number))

    def call_off(self) -> None:
        """Post no more orders but those that the posters hold already; the others leave `orders`."""
        with suppress(queue.Empty):
            first = self._due.get_nowait()[1]
            with suppress(queue.Empty):
                while True:
                    self._due.get_nowait()
            del self.orders[first:]

    @property
    def posted(self) -> int:
        """Orders that were accepted."""
        return sum(order.job_id is not None for order in self.orders)

    @property
    def seen(self) -> int:
        """Orders whose end was told."""
        return sum(order.seen is not None for order in self.orders)

    def _post_until_ended(self) -> None:
        connection = _Connection(self._address, self._headers)
        while not self._stopping.is_set():
            try:
                due_s, number = self._due.get(timeout=0.2)
            except queue.Empty:
                continue
            order = self.orders[number]
            if self._stopping.wait(max(0.0, self._began + due_s - time.monotonic())):
                return
            self._post(connection, order)

    def _post(self, connection: "_Connection", order: Order) -> None:
        key = {"Idempotency-Key": f"order-{order.number}"} if self._has_keys else {}
        while not self._stopping.is_set():
            began, order.posted_at = time.monotonic(), time.time()
            status, headers, body = connection.call("POST", "/v1/jobs", order.body, key)
            order.statuses.append(status)
            order.longest_s = max(order.longest_s, time.monotonic() - began)
            with self._lock:
                self.statuses[status] += 1
            if status == 202:
                order.job_id, order.depth, order.accepted_at = body["id"], body["depth"], time.time()
                self._accepted.put(order)
                return
            if status not in (0, -1, 409, 429, 503) or (status > 0 and "retry-after" not in headers):
                self.complaints.append(f"order {order.number}: {status} {headers} {body}")
            self._stopping.wait(min(PATIENCE_S, float(headers.get("retry-after", 0.2))))

    def _poll_until_ended(self) -> None:
        connection = _Connection(self._address, self._headers)
        while not self._stopping.is_set():
            with suppress(queue.Empty):
                order = self._accepted.get(timeout=0.2)
                if not self._is_over(connection, order):
                    self._accepted.put(order)

    def _is_over(self, connection: "_Connection", order: Order) -> bool:
        """Ask for the end of an order's job, or for what is wished; True once nothing is left to ask."""
        path = f"/v1/jobs/{order.job_id}"
        if order.seen is None:
            ask = ("POST", f"{path}/cancel") if order.wish == "cancel" else ("GET", f"{path}?wait={POLL_S}")
            status, _, body = connection.call(*ask)
            if status == 200 and body["status"] in TERMINAL:
                order.seen = body["status"]
            elif status != 200:
                self._stopping.wait(0.2)
        if order.seen is not None and order.wish == "erase" and not order.is_erased:
            # 404: an erasure whose answer was lost.
            order.is_erased = connection.call("DELETE", path)[0] in (200, 404)
        return order.seen is not None and (order.is_erased or order.wish != "erase")


class _Connection:
    """One connection, opened again when it breaks."""

    def __init__(self, address: tuple[str, int], headers: Mapping[str, str]) -> None:
        self._http = http.client.HTTPConnection(*address, timeout=HUNG_S)
        self._headers = headers

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of the answer; 0 for a connection that broke, -1 for no answer."""
        try:
            self._http.request(method, path, body and json.dumps(body), {**self._headers, **(headers or {})})
            answer = self._http.getresponse()
            text = answer.read()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(text)
        except TimeoutError:
            self._http.close()
            return -1, {}, None
        except (OSError, http.client.HTTPException, ValueError):
            self._http.close()
            return 0, {}, None
