"""What the notes of the product's processes say of one job: its functions, its values and its threads. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

#: One line of a process's notes; see `tracer`.
Note = Mapping[str, Any]
Each = TypeVar("Each")


class Function(NamedTuple):
    """A function of the product."""

    file: str
    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was followed.

    Attributes:
        ids: its own id, and those of its prompt and its webhook: 32 hexadecimal digits each.
        began_at, ended_at: between which nothing else was asked of the stack; monotonic, the same in all processes.
    """

    ids: frozenset[str]
    began_at: float
    ended_at: float

    def has(self, note: Note) -> bool:
        """True if it was written in the job's time."""
        return self.began_at <= note["at"] < self.ended_at


@dataclass(frozen=True, slots=True)
class Path:
    """What one process did for a job.

    Attributes:
        functions: those that hand the job on, in the order of their first call.
        entered: all functions that are entered for the job.
        values: kinds of values that cross one of `functions`.
        handovers: from thread to thread.
    """

    functions: tuple[Function, ...]
    entered: tuple[Function, ...]
    values: frozenset[str]
    handovers: frozenset[tuple[str, str]]

    @property
    def files(self) -> list[str]:
        """The files of the functions."""
        return list(dict.fromkeys(function.file for function in self.functions))


def usual(paths: Sequence[Path]) -> Path:
    """What most jobs have in common, so that what a process happened to do meanwhile falls out."""
    return Path(
        tuple(_usual([path.functions for path in paths])),
        tuple(_usual([path.entered for path in paths])),
        frozenset(_usual([path.values for path in paths])),
        frozenset(_usual([path.handovers for path in paths])),
    )


def _usual(found: Sequence[Collection[Each]]) -> list[Each]:
    """What more than half of these have, in the order of the first that has it."""
    counts = Counter(each for one in found for each in one)
    return [each for each, count in counts.items() if 2 * count > len(found)]


def paths_of(notes: Sequence[Note], jobs: Sequence[Job]) -> list[Path]:
    """What a process did for each of these jobs, which came one after the other."""
    shared = _shared(notes, jobs)
    return [_path([note for note in notes if job.has(note)], job.ids, shared) for job in jobs]


def _shared(notes: Iterable[Note], jobs: Sequence[Job]) -> set[int]:
    """What was there in the time of more than one job: services, settings, constants, what is cached."""
    seen = defaultdict[int, set[int]](set)
    for note in notes:
        for no, job in enumerate(jobs):
            if job.has(note):
                for identity in _identities(note):
                    seen[identity].add(no)
    return {identity for identity, times in seen.items() if len(times) > 1}


def _identities(note: Note) -> list[int]:
    values = note["values"]
    return [value["is"] for value in values if "is" in value] + [kind[1] for value in values for kind in value["kinds"]]


def _path(notes: Sequence[Note], ids: Collection[str], shared: Collection[int]) -> Path:
    entered = {note["call"]: note for note in notes if "function" in note}
    carrying = {
        note["call"]
        for note in notes
        for value in note["values"]
        if note["call"] in entered and value.get("is") not in shared and not ids.isdisjoint(value["ids"])
    }
    handing, around, below = set[int](), set[int](), set[int]()
    for number, note in entered.items():
        if number in carrying or note["parent"] in below:
            below.add(number)
    for number in carrying:
        above = list(_above(number, entered))
        around.update(above)
        handing.update([each for each in above if each in carrying][:1])
    told = [note for note in notes if note["call"] in below | around]
    return Path(
        _functions(note for number, note in entered.items() if number in handing),
        _functions(note for note in told if "function" in note),
        _values((note for note in told if note["call"] in handing), entered, shared),
        _handovers(told),
    )


def _above(number: int, entered: Mapping[int, Note]) -> Iterator[int]:
    """The calls in which a call was made, the nearest first."""
    while (number := entered[number]["parent"]) in entered:
        yield number


def _functions(notes: Iterable[Note]) -> tuple[Function, ...]:
    places = (place for note in notes for place in (*reversed(note["standing"]), note["function"]))
    return tuple(dict.fromkeys(Function(*place) for place in places))


def _values(notes: Iterable[Note], entered: Mapping[int, Note], shared: Collection[int]) -> frozenset[str]:
    """Classes; and a bare tuple or dict by the function that it crossed first, which stands for its type."""
    first = dict[int, str]()
    for note in notes:
        for kind, identity in (kind for value in note["values"] for kind in value["kinds"]):
            if identity not in shared and identity not in first:
                file, name, _line = entered[note["call"]]["function"]
                first[identity] = f"{kind} of {file} {name}" if kind in ("tuple", "dict") else kind
    return frozenset(first.values())


def _handovers(notes: Iterable[Note]) -> frozenset[tuple[str, str]]:
    """Which thread goes on after which. Threads of a pool are one: their numbers differ from job to job."""
    threads = [re.sub(r"[\d_-]+", "", note["thread"].partition(" ")[0]) or "thread" for note in notes]
    return frozenset((one, other) for one, other in pairwise(threads) if one != other)
