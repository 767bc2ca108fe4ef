"""How long answers get: a distribution for each lane, learned from those that have ended and those under way. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise

from headrace.domain.queues import Lane
from headrace.policies.answers import BOUNDS, AnswerLength, ExpectedOutput

#: Answers of one lane that are remembered; older ones say less about what comes.
REMEMBERED = 2000
#: For how many answers the guess stands that holds while none has ended: half of all get to within a quarter of the
#: job's maximum. Jobs that come together run together, and what their long answers will take is not known before they
#: are long: a kinder guess lets too many in until then where most are long, a sterner one too few where they are short.
GUESS_WEIGHT, GUESS_SHAPE = 1.0, 0.5
#: Lengths are told apart in steps of so many tokens.
STEP_TOKENS = 8
#: What was learned counts from when it is this share of what is remembered: the distribution changes by little at once.
NEWS_SHARE = 1 / 32


class Lengths:
    """The answers of one lane. Not safe for many threads."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, bool]] = deque()
        #: Answers that ended by themselves at each step, and those that were cut there by their maximum.
        self._ended: list[int] = []
        self._cut: list[int] = []
        #: Of the remembered and those under way, how many have at least so many steps.
        self._reached: list[int] = []
        #: The share of all answers that get as far as each step.
        self._survival: list[float] = []
        self._news = 0
        #: Goes up when `alive` begins to say something else.
        self.edition = 0

    def learn(self, tokens: int, under_way: Iterable[int] = (), *, is_cut: bool = False) -> None:
        """An answer has ended after so many tokens.

        Args:
            is_cut: by its maximum: how long it would have got is not known.
            under_way: tokens of those that have not ended. Without them short answers, which end first, would be
                believed to be all there are.
        """
        step = tokens // STEP_TOKENS
        for counts in (self._ended, self._cut):
            counts.extend([0] * (step + 1 - len(counts)))
        (self._cut if is_cut else self._ended)[step] += 1
        self._recent.append((step, is_cut))
        if len(self._recent) > REMEMBERED:
            oldest, was_cut = self._recent.popleft()
            (self._cut if was_cut else self._ended)[oldest] -= 1
        self._news += 1
        if self._news >= NEWS_SHARE * len(self._recent):
            self._publish(under_way)

    def alive(self, produced: int, more: int, most: int) -> float:
        """The chance that an answer that has `produced` tokens has at least `more` to come, below its maximum `most`.

        The share of those that got as far, with the guess as so many further answers: a rare length is not taken for
        an impossible one.
        """
        if produced + more >= most:
            return 0.0
        guess: float = (1.0 - more / (most - produced)) ** GUESS_SHAPE
        at, later = _nearest(produced), _nearest(produced + more)
        reached = self._reached[at] if at < len(self._reached) else 0
        # Beyond the last that ended nothing is known to end.
        went_on = reached and reached * self._survival[min(later, len(self._survival) - 1)] / self._survival[at]
        return (went_on + GUESS_WEIGHT * guess) / (reached + GUESS_WEIGHT)

    def _publish(self, under_way: Iterable[int]) -> None:
        self._news = 0
        self.edition += 1
        reached = [ended + cut for ended, cut in zip(self._ended, self._cut, strict=True)]
        for tokens in under_way:
            step = tokens // STEP_TOKENS
            reached.extend([0] * (step + 1 - len(reached)))
            reached[step] += 1
        for step in range(len(reached) - 2, -1, -1):
            reached[step] += reached[step + 1]
        # The product-limit estimate, in which an answer under way, or cut, counts as far as it got.
        # Source: Kaplan, Meier: Nonparametric Estimation from Incomplete Observations, 1958.
        survival, left = [], 1.0
        for step, count in enumerate(reached):
            survival.append(left)
            if step < len(self._ended) and count:
                left *= 1.0 - self._ended[step] / count
        self._reached, self._survival = reached, [*survival, left]

    def expected(self) -> ExpectedOutput | None:
        """How long answers will likely be, by the most that they may be; None while none has ended."""
        if not self._survival:
            return None
        # Tokens up to each step; beyond the last nothing is known to end.
        areas = [0.0, *accumulate(STEP_TOKENS * (a + b) / 2 for a, b in pairwise(self._survival))]
        last = len(areas) - 1

        def tokens(most: int) -> float:
            step, rest = divmod(most, STEP_TOKENS)
            if step >= last:
                return areas[last] + self._survival[last] * (most - last * STEP_TOKENS)
            a, b = self._survival[step : step + 2]
            return areas[step] + rest * (a + (b - a) * rest / STEP_TOKENS / 2)

        return ExpectedOutput(len(self._recent), tuple(min(most, tokens(most)) for most in BOUNDS))


def _nearest(tokens: int) -> int:
    return (tokens + STEP_TOKENS // 2) // STEP_TOKENS


def by_lane(answers: Iterable[AnswerLength] = ()) -> Mapping[Lane, Lengths]:
    """One for each lane. Args: answers: those of former days, oldest first."""
    found = {lane: Lengths() for lane in Lane}
    for answer in answers:
        found[answer.lane].learn(answer.tokens, is_cut=answer.is_cut)
    return found
