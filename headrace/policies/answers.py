"""Expected answer lengths: what workers learn from past answers, and the estimate for a given `max_tokens`. Pure."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from headrace.domain.queues import Lane

#: The values of `max_tokens` for which an expected length is kept; each is 1.4 times the previous one.
BOUNDS = tuple(sorted({round(2 ** (half / 2)) for half in range(35)}))
#: Weight of the prior, in answers. The prior is an answer that reaches its maximum.
PRIOR_ANSWERS = 1.0
_LANES = frozenset(Lane)


class AnswerLength(NamedTuple):
    """The length of one answer. `is_cut`: `max_tokens` ended it."""

    lane: Lane
    tokens: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class ExpectedOutput:
    """The mean length of answers by their `max_tokens`.

    Attributes:
        answers: number of answers behind the means.
        tokens: the mean for each of `BOUNDS`.
    """

    answers: int
    tokens: tuple[float, ...]

    def within(self, max_tokens: int) -> float:
        """Expected tokens of an answer with this maximum. With few learned answers the estimate is near the maximum."""
        after = min(bisect_left(BOUNDS, max_tokens), len(BOUNDS) - 1)
        if after == 0:
            return max_tokens
        (x0, x1), (y0, y1) = BOUNDS[after - 1 : after + 1], self.tokens[after - 1 : after + 1]
        learned = y0 + (y1 - y0) * (max_tokens - x0) / (x1 - x0)
        return (learned * self.answers + max_tokens * PRIOR_ANSWERS) / (self.answers + PRIOR_ANSWERS)

    @classmethod
    def together(cls, several: Sequence["ExpectedOutput"]) -> Self:
        """Combine what several workers learned about one lane, weighted by the answers that each has seen."""
        answers = sum(each.answers for each in several)
        weighted = ([each.answers * tokens for tokens in each.tokens] for each in several)
        return cls(answers, tuple(sum(column) / answers for column in zip(*weighted, strict=True)))


#: By lane, for lanes that had answers.
ExpectedOutputs = Mapping[Lane, ExpectedOutput]


def to_fields(outputs: ExpectedOutputs) -> dict[str, Any]:
    return {lane: [each.answers, *(round(tokens, 1) for tokens in each.tokens)] for lane, each in outputs.items()}


def from_fields(fields: Mapping[str, Sequence[float]]) -> ExpectedOutputs:
    """Read what `to_fields` wrote. Leaves out what another release wrote with other lanes or other `BOUNDS`."""
    return {
        Lane(lane): ExpectedOutput(int(answers), tuple(tokens))
        for lane, (answers, *tokens) in fields.items()
        if lane in _LANES and len(tokens) == len(BOUNDS)
    }


def together(several: Sequence[ExpectedOutputs]) -> ExpectedOutputs:
    """Combine what the workers of a pool learned, by lane."""
    lanes = {lane: [each[lane] for each in several if lane in each] for lane in Lane}
    return {lane: ExpectedOutput.together(each) for lane, each in lanes.items() if each}
