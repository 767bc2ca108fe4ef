"""JSON schemas that a grammar cannot be made of at a bounded cost. Pure.

vLLM checks each schema on the event loop of its engine's client, by making its grammar: all streams of the worker wait
for it. Then a pool of threads in the engine's core makes it once more. Neither can be stopped. xgrammar takes quadratic
time for repetitions in a pattern, llguidance exponential time for what `allOf` combines.
"""

import itertools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from headrace.domain.prompts import Sampling
from headrace.errors import PromptRejected
from headrace.policies.routing.json_schema import listed, named, referenced

#: The most items that all lists of a schema may have together. llguidance writes each bound out: 100,000 items fail,
#: and above 1,000,000 it takes all memory of the process, which cannot be stopped.
MOST_ITEMS = 30_000
#: The most time that a grammar may take to make, in microseconds of one core, by the estimates below. Source: xgrammar
#: 0.2.8 and llguidance 1.7.6, the slower of the two.
MOST_US = 300_000
_CHARACTER_US, _ITEM_US = 1.2, 9
#: For each two that are compared: states of one pattern, properties of one object (with a bound on their number),
#: alternatives, and a pattern of names with another one or with a name.
_STATES_US, _NAMES_US, _COUNTED_NAMES_US, _ALTERNATIVES_US, _NAME_PATTERNS_US = 0.45, 0.08, 2.7, 0.04, 33
#: For each part, and each property of it, in each combination that `allOf` makes of parts.
_PART_US, _PROPERTY_US = 130, 30
#: The most parts to visit while combinations are counted, some 20 ms, and of them in one chain.
_MOST_VISITS, _DEEPEST = 20_000, 100

_SIZE, _PATTERNS, _NAMES, _COMBINED = "its size", "repetitions in patterns", "properties", "parts to combine"
_REMEDIES = {
    _SIZE: "Make it shorter.",
    _PATTERNS: "Lower the bounds of repetitions such as '{0,1000}' in its patterns, or use 'maxLength'.",
    _NAMES: "Give its objects fewer properties and patterns of names, and its parts fewer alternatives.",
    _COMBINED: "Combine less by 'allOf', by '$ref' and by keywords beside 'anyOf' and 'oneOf': write the parts out.",
}
_BOUNDS = ("minItems", "maxItems")
#: What they hold is no schema.
_VALUES = frozenset({"const", "enum", "default", "examples"})
#: What they hold is schemas by name.
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_ALTERNATIVES = ("anyOf", "oneOf")
_COMBINING = frozenset(("$ref", "allOf", *_ALTERNATIVES))
#: Keywords without a constraint of their own on the value.
_UNCONSTRAINING = _COMBINING | frozenset(
    ("$defs", "definitions", "$schema", "$id", "title", "description", "$comment", "default", "examples")
)
_QUANTIFIER = re.compile(r"\{\s*(\d*)\s*(?:(,)\s*(\d*)\s*)?\}")
_MANY = 10**6


def check_sampling(sampling: Sampling) -> None:
    """Check what the grammar of an answer may be made of. Raises: PromptRejected."""
    check_schemas(((sampling.response_format or {}).get("json_schema") or {}).get("schema"))
    if sampling.tools is not None and sampling.tools.choice != "none":
        check_schemas(*(each.get("parameters") for each in sampling.tools.functions), param="tools")


def check_schemas(*schemas: Any, param: str = "response_format") -> None:
    """Raises: PromptRejected: to make one grammar of these schemas would take too much memory, or too long."""
    cost = _Cost(param)
    for schema in schemas:
        cost.add(_SIZE, _CHARACTER_US * len(json.dumps(schema, ensure_ascii=False, separators=(",", ":"))))
        parts = list(_parts(schema, param))
        asked = sum(max(map(_number, map(part.get, _BOUNDS))) for part in parts)
        if asked > MOST_ITEMS:
            raise _refused(
                f"its lists have up to {asked:.0f} items by 'minItems' and 'maxItems', and may have {MOST_ITEMS} "
                "together. Leave the bounds out, or lower them.",
                param,
            )
        cost.add(_SIZE, _ITEM_US * asked)
        combinations = _Combinations(schema, cost)
        for part in parts:
            _check_part(part, cost)
            if not _COMBINING.isdisjoint(part):
                combinations.count((part,))


class _Cost:
    """What a grammar takes to make, by cause."""

    def __init__(self, param: str) -> None:
        self._param, self._us = param, Counter[str]()

    def add(self, cause: str, us: float) -> None:
        """Raises: PromptRejected: it is too much with this."""
        self._us[cause] += math.ceil(us)
        if self._us.total() > MOST_US:
            cause = max(self._us, key=self._us.__getitem__)
            raise _refused(
                f"its grammar would take longer than {MOST_US / 1e6} s to make, most of it for {cause}. "
                f"{_REMEDIES[cause]}",
                self._param,
            )


def _check_part(part: Mapping[str, Any], cost: _Cost) -> None:
    required = {each for each in listed(part, "required") if isinstance(each, str)}
    names, patterns = len(named(part, "properties").keys() | required), named(part, "patternProperties")
    is_counted = "minProperties" in part or "maxProperties" in part
    cost.add(_NAMES, (_COUNTED_NAMES_US if is_counted else _NAMES_US) * names**2)
    cost.add(_NAMES, _NAME_PATTERNS_US * len(patterns) * (len(patterns) - 1 + names))
    for keyword in _ALTERNATIVES:
        cost.add(_NAMES, _ALTERNATIVES_US * len(listed(part, keyword)) ** 2)
    for pattern in (part.get("pattern"), *patterns):
        if isinstance(pattern, str):
            cost.add(_PATTERNS, _STATES_US * repeated_states(pattern) ** 2)


#: Parts that apply to one value together.
Combination: TypeAlias = tuple[Mapping[str, Any], ...]


class _Combinations:
    """Counts the combinations of parts that apply to one value, as llguidance writes them out."""

    def __init__(self, schema: Any, cost: _Cost) -> None:
        self._schema, self._cost = schema, cost
        self._counted = set[tuple[int, ...]]()
        self._visits = 0

    def count(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Count what parts for one value make together, and what they make of its items and properties."""
        left = [tuple(parts)]
        while left:
            together = left.pop()
            if (key := tuple(sorted(map(id, together)))) in self._counted:
                continue
            self._counted.add(key)
            for combination in self._product([self._of(part, ()) for part in together]):
                if len(combination) > 1:
                    properties = sum(len(named(part, "properties")) for part in combination)
                    self._cost.add(_COMBINED, _PART_US * len(combination) + _PROPERTY_US * properties)
                    left += (below for below in _below(combination) if len(below) > 1)

    def _of(self, part: Any, path: tuple[int, ...]) -> list[Combination]:
        """The combinations of parts, one of which a value must keep to, for this part.

        Args: path: the parts that led here. One that leads back to them adds nothing.
        """
        self._visits += 1
        if self._visits > _MOST_VISITS or len(path) > _DEEPEST:
            self._cost.add(_COMBINED, 2 * MOST_US)
        if not isinstance(part, Mapping) or id(part) in path:
            return [()]
        path = (*path, id(part))
        factors: list[list[Combination]] = [] if part.keys() <= _UNCONSTRAINING else [[(part,)]]
        if "$ref" in part:
            factors.append(self._of(referenced(self._schema, part["$ref"]), path))
        factors += (self._of(each, path) for each in listed(part, "allOf"))
        for keyword in _ALTERNATIVES:
            if alternatives := listed(part, keyword):
                factors.append([made for each in alternatives for made in self._of(each, path)])
        return self._product(factors)

    def _product(self, factors: Sequence[list[Combination]]) -> list[Combination]:
        if len(factors) == 1:
            return factors[0]
        width = sum(max(map(len, factor), default=0) for factor in factors)
        self._visits += math.prod(map(len, factors)) * width
        if self._visits > _MOST_VISITS:
            self._cost.add(_COMBINED, 2 * MOST_US)
        return [tuple(itertools.chain.from_iterable(each)) for each in itertools.product(*factors)]


def _below(parts: Sequence[Mapping[str, Any]]) -> Iterator[Combination]:
    """The parts for each item or property of a value to which all these parts apply."""
    at = defaultdict[str | int, dict[int, list[Any]]](dict)
    for index, part in enumerate(parts):
        for place, below in _children(part):
            at[place].setdefault(index, []).append(below)
    others = {int: at["items"], str: at["additionalProperties"]}
    for place, of_parts in at.items():
        together = {**others[type(place)], **of_parts}.values()
        yield tuple(each for several in together for each in several if isinstance(each, Mapping))


def _children(part: Mapping[str, Any]) -> Iterator[tuple[str | int, Any]]:
    """The parts for a value's items by index, for its properties by name after `=`, and for all others by keyword."""
    yield from ((f"={name}", each) for name, each in named(part, "properties").items())
    yield from enumerate(listed(part, "prefixItems"))
    yield from ((keyword, part[keyword]) for keyword in ("items", "additionalProperties") if keyword in part)
    yield from (("additionalProperties", each) for each in named(part, "patternProperties").values())


def repeated_states(pattern: str) -> int:
    """The states that the repetitions of a regular expression make when they are written out, from above."""
    groups: list[list[tuple[int, int]]] = [[]]  # Of each open group, its atoms: states, and those in repetitions.
    at = 0
    while at < len(pattern):
        character, at = pattern[at], at + 1
        if character == "(":
            groups.append([])
        elif character == ")" and len(groups) > 1:
            atoms = groups.pop()
            groups[-1].append((max(1, sum(size for size, _ in atoms)), sum(repeated for _, repeated in atoms)))
        elif character == "{" and (found := _QUANTIFIER.match(pattern, at - 1)):
            at = found.end()
            if groups[-1] and (times := _times(found)) > 1:
                size = min(groups[-1].pop()[0] * times, _MANY)
                groups[-1].append((size, size))
        elif character not in "*+?|^$":
            at = _end_of_class(pattern, at) if character == "[" else at + (character == "\\")
            groups[-1].append((1, 0))
    return sum(repeated for atoms in groups for _, repeated in atoms)


def _times(quantifier: re.Match[str]) -> int:
    least, is_range, most = quantifier.groups()
    if len(least) > 6 or len(most or "") > 6:
        return _MANY
    return max(int(least or 0) + bool(is_range), int(most or 0))


def _end_of_class(pattern: str, at: int) -> int:
    """Where a class of characters ends that begins before here. It ends early rather than late: more is counted so."""
    while at < len(pattern) and pattern[at] != "]":
        at += 1 + (pattern[at] == "\\")
    return at + 1


def _parts(schema: Any, param: str) -> Iterator[Mapping[str, Any]]:
    """Each part of a schema, and what its references name, wherever that is.

    Raises: PromptRejected: a reference that cannot be followed.
    """
    is_old = isinstance(schema, Mapping) and "draft-04" in str(schema.get("$schema"))
    id_keyword = "id" if is_old else "$id"
    left: list[tuple[Any, bool]] = [(schema, False)]
    seen = set[tuple[int, bool]]()
    while left:
        part, is_named = left.pop()
        if isinstance(part, list):
            left += ((each, False) for each in part)
        if not isinstance(part, Mapping) or (id(part), is_named) in seen:
            continue
        seen.add((id(part), is_named))
        if is_named:
            left += ((each, False) for each in part.values())
            continue
        yield part
        left += ((each, name in _NAMED) for name, each in part.items() if name not in _VALUES)
        if "$ref" in part:
            left.append((_target(schema, part["$ref"], param), False))
        # It would change what references below it mean. `#name` does not.
        if part is not schema and isinstance(part.get(id_keyword), str) and part[id_keyword][:1] != "#":
            raise _refused(f"a part of it has an '{id_keyword}' of its own. Leave it out.", param)


def _target(schema: Any, reference: Any, param: str) -> Any:
    if (target := referenced(schema, reference)) is None:
        raise _refused(f"it has no part {str(reference)[:100]!r}. A '$ref' is like '#/$defs/name'.", param)
    return target


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _refused(why: str, param: str) -> PromptRejected:
    return PromptRejected(f"This JSON schema cannot guide the answer: {why}", param=param)
