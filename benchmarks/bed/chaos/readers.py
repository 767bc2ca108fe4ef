"""Readers of streams: each follows one answer after the other, and writes down what it was told of each.

Some break off and come back. `garbled` compares what was said to be whole with what Postgres has, and has its evidence.
Knows HTTP, and nothing of what broke.
"""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Literal
from urllib.parse import urlsplit

from bed.chaos.orders import HUNG_S, MAX_WAIT_S
from bed.chaos.world import World
from headrace.domain.ids import parse_id
from headrace.domain.queues import KEY_PREFIX

#: How many there are at once; half of them read chat completions.
READERS = 6
#: Events after which a reader of a response breaks off, every other time.
BREAKS_OFF_AFTER = 12
TOKENS = 24
PAUSE_S = 0.2
#: How often a reader comes back to one response.
RESUMES = 40
_ATTEMPTS = """
    SELECT number, outcome, extract(epoch FROM started_at)::float, extract(epoch FROM ended_at)::float FROM attempts
    WHERE job_id = %s ORDER BY started_at
"""
#: `whole`: the stream said that the answer is complete; `error`: that it is not, or that the job has failed;
#: `refused`: no stream was given; `cut`: it ended without a word.
Outcome = Literal["whole", "error", "refused", "cut"]


@dataclass(slots=True)
class Read:
    """One answer, as its reader had it.

    Attributes:
        began_at, ended_at: on the machine's clock.
        heard: what it was told, with its time: the event's number, or none in a chat, its type, and its text. And when
            it came back.
    """

    began_at: float
    ended_at: float = 0.0
    job_id: str = ""
    text: str = ""
    outcome: Outcome = "cut"
    resumed: int = 0
    restarted: int = 0
    heard: list[tuple[float, int | None, str, str]] = field(default_factory=list)

    def note(self, number: int | None, kind: str, text: str = "") -> None:
        """Write down what was told just now."""
        self.heard.append((time.time(), number, kind, text))


class Readers:
    """Read in threads of their own between `begin` and `end`. Attributes: complaints: what no outage excuses."""

    def __init__(self, world: World, number: int) -> None:
        """Plan this number of readers."""
        address, api_key = urlsplit(world.url), world.api_key
        self._address = address.hostname or "", address.port or 80
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self._model = world.stack.report.model
        self._numbers = count()
        self._stopping = threading.Event()
        self.reads: list[Read] = []
        self.complaints: list[str] = []
        kinds = [(self._response, self._chat)[each % 2] for each in range(number)]
        self._threads = [threading.Thread(target=self._read_until_ended, args=(kind,), daemon=True) for kind in kinds]

    def begin(self) -> None:
        """Start to read."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Begin no more, and read what is open to its end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * HUNG_S)

    def _read_until_ended(self, follow: Any) -> None:
        while not self._stopping.is_set():
            number, read = next(self._numbers), Read(time.time())
            try:
                follow(number, read)
            except (OSError, http.client.HTTPException, ValueError) as error:
                # The API itself does not break, so that no stream may.
                self.complaints.append(f"stream {number}: {error!r}")
            read.ended_at = time.time()
            self.reads.append(read)
            if read.outcome == "refused":
                self._stopping.wait(PAUSE_S)

    def _chat(self, number: int, read: Read) -> None:
        messages = [{"role": "user", "content": _prompt(number)}]
        asked = {"messages": messages, "max_tokens": TOKENS, **self._common(number)}
        for event in self._events("POST", "/v1/chat/completions", read, asked):
            if "error" in event:
                read.outcome = "error"
                read.note(None, event["error"]["code"])
            elif event.get("choices"):
                [choice] = event["choices"]
                read.note(None, choice["finish_reason"] or "", choice["delta"].get("content") or "")
                read.text += choice["delta"].get("content") or ""
                read.outcome = "whole" if choice["finish_reason"] else read.outcome

    def _response(self, number: int, read: Read) -> None:
        asked = {"input": _prompt(number), "max_output_tokens": TOKENS, "background": True, **self._common(number)}
        last, path, body = -1, "/v1/responses", asked
        for _ in range(RESUMES):
            for had, event in enumerate(self._events("POST" if body else "GET", path, read, body)):
                if event.get("code") == "stream_interrupted":
                    break
                if event["sequence_number"] <= last:
                    self.complaints.append(f"stream {number}: {event} came after number {last}")
                last = event["sequence_number"]
                self._hear(event, read)
                if number % 2 and had == BREAKS_OFF_AFTER and not read.resumed:
                    break
            if read.outcome != "cut" or not read.job_id:
                return
            if not body:
                self._stopping.wait(PAUSE_S)
            read.resumed += 1
            read.note(last, "resume")
            path, body = f"/v1/responses/{read.job_id}?stream=true&starting_after={last}", {}

    @staticmethod
    def _hear(event: Mapping[str, Any], read: Read) -> None:
        read.note(event["sequence_number"], event["type"], str(event.get("delta", event.get("code", ""))))
        match event:
            case {"type": "response.output_text.delta", "delta": str(text)}:
                read.text += text
            case {"type": "error", "code": "stream_restarted"}:
                read.text, read.restarted = "", read.restarted + 1
            case {"type": "response.completed" | "response.incomplete", "response": {"status": status}}:
                # One that reached its `max_tokens` is whole too.
                read.outcome = "whole" if status in ("completed", "incomplete") else "error"
            case {"type": "response.failed"}:
                read.outcome = "error"

    def _common(self, number: int) -> dict[str, Any]:
        job = {"lane": "high", "overflow": "never", "max_wait": MAX_WAIT_S}
        return {"model": self._model, "job": job, "metadata": {"order": f"stream {number}"}}

    def _events(self, method: str, path: str, read: Read, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        connection = http.client.HTTPConnection(*self._address, timeout=HUNG_S)
        try:
            connection.request(method, path, json.dumps({**body, "stream": True}) if body else None, self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                # One that comes back is given the rest later, unless its stream is gone.
                read.outcome = "cut" if read.job_id and answer.status != 400 else "refused"
                if answer.status not in (429, 503) and not (read.job_id and answer.status == 400):
                    self.complaints.append(f"{method} {path}: {answer.status} {answer.read()!r}")
                return
            read.job_id = read.job_id or answer.getheader("x-job-id", "")
            for line in answer:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    read.job_id = read.job_id or event.get("response", {}).get("id", "")
                    yield event
        finally:
            connection.close()


def _prompt(number: int) -> str:
    return f"Stream {number} of {time.time_ns():x}?"


def judge_streams(world: World, readers: Readers, struck_at: Sequence[float]) -> dict[str, Any]:
    """Streams by their ends; those under way at a death; and `garbled`: said to be whole, but not the job's answer."""
    reads = list(readers.reads)
    whole = [read for read in reads if read.outcome == "whole"]
    answers = {read.job_id: _answer(world, read.job_id) for read in whole}
    garbled = [read for read in whole if answers[read.job_id] not in (None, read.text)]
    return {
        "garbled": len(garbled),
        "garbled_evidence": [_evidence(world, read, answers[read.job_id]) for read in garbled],
        "streams": len(reads),
        "streams_under_way": sum(any(read.began_at < at < read.ended_at for at in struck_at) for read in whole),
        "streams_whole": len(whole),
        "streams_in_error": sum(read.outcome == "error" for read in reads),
        "streams_refused": sum(read.outcome == "refused" for read in reads),
        "streams_cut": sum(read.outcome == "cut" for read in reads),
        "streams_resumed": sum(read.resumed > 0 for read in reads),
        "streams_restarted": sum(read.restarted > 0 for read in reads),
    }


def _answer(world: World, shown_id: str) -> str | None:
    """What Postgres has; None where the job is lost, which other figures count."""
    rows = world.sql("SELECT answer FROM job_texts WHERE job_id = %s", parse_id(shown_id))
    # A stream that says it is whole has an answer: without one it is garbled.
    return rows[0][0] or "" if rows else None


def _evidence(world: World, read: Read, answer: str | None) -> dict[str, Any]:
    """What explains a garbled stream: what its reader had, what is stored, its attempts, and what Redis has."""
    job_id = parse_id(read.job_id)
    attempts = world.sql(_ATTEMPTS, job_id)
    entries = world.onlooker.xrange(f"{KEY_PREFIX}stream:{job_id.hex}")
    return {**asdict(read), "answer": answer, "attempts": attempts, "entries": entries}
