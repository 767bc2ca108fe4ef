"""Where the time to a first token goes: a stack's hops from its logs (`headrace.hops`), vLLM's from its metrics.

All times are of one machine's monotonic clock.
"""

import json
import re
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bed.first_token import Heard

#: The step that is the engine's own work, and the other steps that the peer's metrics show.
CORE, AROUND, OUTSIDE = "the core's first token", "to the core and back", "outside"
#: What the peer sums up: from its front end to its first token there, and the part of its core.
FRONT_S, CORE_S = "vllm:time_to_first_token_seconds_sum", "vllm:request_prefill_time_seconds_sum"
#: The stack's hops in order: what the way to each is, and its name in the log. The last is the reader's own.
WAY = (
    ("to the API", "request"),
    ("accept: check, reserve, commit to disk, push; the bell", "bell"),
    ("look", "look"),
    ("take", "take"),
    ("to the task's thread", "thread"),
    ("claim", "claim"),
    ("encode, hand to the engine", "handed"),
    ("to the engine's core", "scheduled"),
    (CORE, "computed"),
    ("back from the core", "piece"),
    ("publish, wake of the API's listener", "news"),
    ("event out", "event"),
    ("to the reader", "heard"),
)
_LINE = re.compile(r"^(\S+?)(?:\{.*\})? (\S+)$")

#: Times of one job by hop, in monotonic seconds.
Hops = dict[str, float]


def hops_of(logs: Path, heard: Iterable[Heard]) -> list[Hops]:
    """The hops of each stream that was heard, from all logs of its stack, from its request to its first text."""
    told: dict[str, list[tuple[float, str]]] = {}
    for line in _lines(logs):
        told.setdefault(line["job_id"], []).append((line["monotonic_s"], line["hop"]))
    return [_of_one(sorted(told.get(each.job_id, [])), each) for each in heard]


def _lines(logs: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(logs.glob("*.log")):
        with path.open(errors="replace") as file:
            yield from (json.loads(line) for line in file if '"event": "hop"' in line and line.startswith("{"))


def _of_one(told: Sequence[tuple[float, str]], heard: Heard) -> Hops:
    hops: Hops = {"sent": heard.began_s}
    for at_s, hop in told:
        # The listener hears of the beginning too, and an event may be a comment.
        if hop not in ("news", "event") or "piece" in hops:
            hops.setdefault(hop, at_s)
    return hops | {"heard": heard.began_s + heard.first_s}


def steps_ms(found: Sequence[Hops]) -> dict[str, float]:
    """The median of each step of the way, in milliseconds, over the streams that have all hops."""
    names = ["sent", *(hop for _, hop in WAY)]
    whole = [hops for hops in found if all(name in hops for name in names)]
    if not whole:
        return {}
    return {
        way: 1000 * median(hops[hop] - hops[before] for hops in whole)
        for before, (way, hop) in zip(names, WAY, strict=False)
    }


class PeerMetrics:
    """The sums that vLLM's own server counts. One request at a time: a difference is of one request."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/metrics"
        self._before = self._sums()
        self._found: list[dict[str, float]] = []

    def note(self) -> None:
        """Note what the requests since the last call took."""
        now = self._sums()
        self._found.append({name: now[name] - self._before[name] for name in now})
        self._before = now

    def steps_ms(self, heard: Sequence[Heard]) -> dict[str, float]:
        """The medians of its way. Args: heard: the same requests, as their reader had them, the last ones noted."""
        noted = self._found[-len(heard) :]
        return {
            AROUND: 1000 * median(each[FRONT_S] - each[CORE_S] for each in noted),
            CORE: 1000 * median(each[CORE_S] for each in noted),
            OUTSIDE: 1000 * median(one.first_s - each[FRONT_S] for one, each in zip(heard, noted, strict=True)),
        }

    def _sums(self) -> Mapping[str, float]:
        with urllib.request.urlopen(self._url) as answer:
            lines = answer.read().decode().splitlines()
        found = (_LINE.match(line) for line in lines if not line.startswith("#"))
        sums = {each[1]: float(each[2]) for each in found if each}
        # A sum that nothing was added to may be missing.
        return {name: sums.get(name, 0.0) for name in (FRONT_S, CORE_S)}
