"""How long answers get: what workers learn of them, and what is expected of one that may be so long. Pure."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from headrace.domain.queues import Lane

#: The bounds of answers, in tokens, for which an expected length is told: each is 1.4 times the one before.
BOUNDS = tuple(sorted({round(2 ** (half / 2)) for half in range(35)}))
#: As so many answers that get to their maximum counts what nothing is known of.
PRIOR_ANSWERS = 1.0


class AnswerLength(NamedTuple):
    """One answer that was made. `is_cut`: its maximum ended it."""

    lane: Lane
    tokens: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class ExpectedOutput:
    """The mean length of answers by their maximum.

    Attributes:
        answers: from which it was learned.
        tokens: for each of `BOUNDS`.
    """

    answers: int
    tokens: tuple[float, ...]

    def within(self, max_tokens: int) -> float:
        """Tokens of an answer that may have so many. Few answers say little: then it is nearer to its maximum."""
        after = min(bisect_left(BOUNDS, max_tokens), len(BOUNDS) - 1)
        if after == 0:
            return max_tokens
        (x0, x1), (y0, y1) = BOUNDS[after - 1 : after + 1], self.tokens[after - 1 : after + 1]
        learned = y0 + (y1 - y0) * (max_tokens - x0) / (x1 - x0)
        return (learned * self.answers + max_tokens * PRIOR_ANSWERS) / (self.answers + PRIOR_ANSWERS)

    @classmethod
    def together(cls, several: Sequence["ExpectedOutput"]) -> Self:
        """What several workers have learned of one lane, each by how many answers it has seen."""
        answers = sum(each.answers for each in several)
        weighted = ([each.answers * tokens for tokens in each.tokens] for each in several)
        return cls(answers, tuple(sum(column) / answers for column in zip(*weighted, strict=True)))


#: Of each lane that had answers.
ExpectedOutputs = Mapping[Lane, ExpectedOutput]


def to_fields(outputs: ExpectedOutputs) -> dict[str, Any]:
    """As JSON has it."""
    return {lane: [each.answers, *(round(tokens, 1) for tokens in each.tokens)] for lane, each in outputs.items()}


def from_fields(fields: Mapping[str, Sequence[float]]) -> ExpectedOutputs:
    """What `to_fields` made. Of a version with other bounds: nothing."""
    return {
        Lane(lane): ExpectedOutput(int(answers), tuple(tokens))
        for lane, (answers, *tokens) in fields.items()
        if len(tokens) == len(BOUNDS)
    }


def together(several: Sequence[ExpectedOutputs]) -> ExpectedOutputs:
    """What the workers of a pool have learned."""
    lanes = {lane: [each[lane] for each in several if lane in each] for lane in Lane}
    return {lane: ExpectedOutput.together(each) for lane, each in lanes.items() if each}
