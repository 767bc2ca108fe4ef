"""Attacks by files and batches: lines that cost much and run never, and downloads without an end."""

import base64
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from bed.neighbour.sending import Held, Orders, Sender

#: Of a batch that starves others: lines, and the characters of each.
DEAR_LINES, DEAR_CHARS = 64, 10**6
#: Of a batch that is cancelled: lines.
MANY_LINES = 5_000
#: The largest file, which is one line and else blank ones.
BLANK_BYTES = 200 * 2**20 - 1000
#: Of a batch whose results are read: lines, and the characters of each, which takes Python four bytes for each.
FAT_LINES, FAT_CHARS = 6, 8 * 10**6
#: Of a batch that is run again and again.
KEPT_LINES, KEPT_CHARS = 8, 10**6
#: More than the sockets of both sides hold.
DOWNLOAD_BYTES = 32 * 2**20
#: What a slow reader reads each second, and the room for it in the kernel.
TRICKLE_BYTES, RECEIVE_BYTES = 512, 4096
#: Bytes that one `send` of a file's form has.
PART_BYTES = 2**20
READY_S = 300.0


class Lines(Sender):
    """The neighbour's files and batches. `prepare` comes first."""

    def __init__(self, orders: Orders) -> None:
        """Send nothing yet."""
        super().__init__(orders)
        self._files: dict[str, str] = {}
        self._batches: dict[str, str] = {}
        #: Batches to be cancelled, the oldest first.
        self._open: deque[str] = deque()
        self._retried: deque[str] = deque()
        self._slow = Held(orders.at_once["slow_readers"], until_closed=True)

    def kinds(self) -> dict[str, Callable[[], int]]:
        """The attacks, by name."""
        return {
            "dear_lines": self.dear_batch,
            "cancels": self.cancel,
            "blank_lines": self.blank_batch,
            "fat_results": self.results,
            "slow_readers": self.slow_reader,
            "retries": self.retry,
        }

    def prepare(self) -> None:
        """Upload what the attacks need, and make the batches that they begin with."""
        hostile, wanted = self._orders.is_hostile, {name for name, rate in self._orders.rates.items() if rate > 0}
        makers: dict[str, Callable[[], Iterable[bytes]]] = {
            "dear_lines": lambda: _lines(DEAR_LINES, DEAR_CHARS if hostile else 2),
            "cancels": lambda: _lines(MANY_LINES if hostile else 1, 2),
            "blank_lines": lambda: (*_lines(1, 2), *(_blank() if hostile else ())),
            "fat_results": lambda: _lines(FAT_LINES, FAT_CHARS if hostile else 2, begins="\N{GRINNING FACE}"),
            "slow_readers": lambda: [b" " * (DOWNLOAD_BYTES if hostile else 100)],
            "retries": lambda: _lines(KEPT_LINES, KEPT_CHARS if hostile else 2),
        }
        self._files = {name: self._upload(make()) for name, make in makers.items() if name in wanted}
        for name in wanted.intersection(("fat_results", "retries")):
            made = self._begun(self._create(name, is_later=True))
            self._post(f"/v1/batches/{made}/cancel", b"")
            self._batches[name] = self._until(made, ("cancelled",))
        if "cancels" in wanted:
            self._open = deque(self._create("cancels", is_later=True) for _ in range(self._orders.at_once["cancels"]))
            for each in self._open:
                self._begun(each)
        if "slow_readers" in wanted:
            threading.Thread(target=self._trickle, daemon=True).start()

    def dear_batch(self) -> int:
        """A batch whose lines have to be counted, and are too long."""
        return self._make("dear_lines")[0]

    def cancel(self) -> int:
        """The cancel of a batch with many lines, none of which has begun; another batch takes its place."""
        status = self._post(f"/v1/batches/{self._open.popleft()}/cancel", b"") if self._open else 0
        made, body = self._make("cancels", is_later=True)
        if made == 200:
            self._open.append(body["id"])
        return status or made

    def blank_batch(self) -> int:
        """A batch of blank lines."""
        return self._make("blank_lines")[0]

    def results(self) -> int:
        """A few hundred bytes of results, of lines with long bodies."""
        return self._send("GET", f"/v1/batches/{self._batches['fat_results']}/results", b"", self._orders.key)

    def slow_reader(self) -> int:
        """A download that is read by some bytes each second. As many as came at once are kept open."""
        path = f"/v1/files/{self._files['slow_readers']}/content"
        if not self._orders.is_hostile:
            return self._send("GET", path, b"", self._orders.key)
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._orders.key}\r\n"
        self._slow.open(
            self._orders.host, self._orders.port, f"{head}Connection: close\r\n\r\n".encode(), RECEIVE_BYTES
        )
        return 0

    def retry(self) -> int:
        """Long lines once more, which are cancelled as soon as the next ones come."""
        if self._retried:
            self._post(f"/v1/batches/{self._retried.popleft()}/cancel", b"")
        path = f"/v1/batches/{self._batches['retries']}/retry"
        status, text = self._ask("POST", path, b"{}", self._orders.key, {"Content-Type": "application/json"})
        if status == 200:
            self._retried.append(json.loads(text)["id"])
        return status

    def _trickle(self) -> None:
        while True:
            time.sleep(1)
            self._slow.trickle(TRICKLE_BYTES)

    def _make(self, name: str, *, is_later: bool = False) -> tuple[int, dict[str, Any]]:
        asked: dict[str, Any] = {
            "input_file_id": self._files[name],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        if is_later:
            asked["job"] = {"not_before": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
        body = json.dumps(asked).encode()
        status, text = self._ask("POST", "/v1/batches", body, self._orders.key, {"Content-Type": "application/json"})
        return status, json.loads(text or b"{}")

    def _create(self, name: str, *, is_later: bool = False) -> str:
        """The id of a new batch of this attack's file."""
        status, body = self._make(name, is_later=is_later)
        assert status == 200, (name, status, body)
        return str(body["id"])

    def _begun(self, batch_id: str) -> str:
        return self._until(batch_id, ("in_progress",))

    def _until(self, batch_id: str, states: tuple[str, ...]) -> str:
        """The id, once the batch is in one of these states."""
        until, found = time.monotonic() + READY_S, b"{}"
        while json.loads(found).get("status") not in states:
            assert time.monotonic() < until, found
            time.sleep(0.1)
            found = self._ask("GET", f"/v1/batches/{batch_id}", b"", self._orders.key, {})[1] or b"{}"
        return batch_id

    def _upload(self, lines: Iterable[bytes]) -> str:
        """The id of a new file of this content, which is sent as it is made."""
        boundary = uuid4().hex
        start = f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
        file = 'Content-Disposition: form-data; name="file"; filename="lines.jsonl"\r\n\r\n'
        content = b"".join((f"{start}{file}".encode(), *lines, f"\r\n--{boundary}--\r\n".encode()))
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        status, text = self._ask("POST", "/v1/files", content, self._orders.key, kind)
        assert status == 200, (status, text)
        return str(json.loads(text)["id"])


def _lines(count: int, chars: int, begins: str = "") -> Iterator[bytes]:
    """Lines of a batch, each a prompt of letters at random. Args: begins: how each begins."""
    for number in range(count):
        letters = begins + base64.b32encode(os.urandom(chars * 5 // 8 + 1)).decode()[:chars]
        body = {"messages": [{"role": "user", "content": letters}], "max_tokens": 1}
        line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
        yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _blank() -> Iterator[bytes]:
    yield b"\n" * BLANK_BYTES
