"""The distribution of answer lengths in each lane, learned from ended and running answers. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise

from headrace.domain.queues import Lane
from headrace.policies.answers import BOUNDS, AnswerLength, ExpectedOutput

#: Remembered answers of one lane. Older answers predict less.
REMEMBERED = 2000
#: The prior for lengths, which stands alone until an answer has ended: it weighs as much as `GUESS_WEIGHT` answers. Its
#: shape lets half of all answers reach three quarters of the job's maximum. Jobs that come together run together, and
#: their lengths show late. Until then a prior of shorter answers admits too many jobs where most answers are long. A
#: prior of longer answers admits too few where most are short.
GUESS_WEIGHT, GUESS_SHAPE = 1.0, 0.5
#: Resolution of lengths, in tokens.
STEP_TOKENS = 8
#: New answers count once they are this share of the remembered ones. Each update then changes the distribution little.
NEWS_SHARE = 1 / 32


class Lengths:
    """The answers of one lane. Not safe for many threads."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, bool]] = deque()
        #: Answers that ended by themselves at each step, and answers that `max_tokens` cut there.
        self._ended: list[int] = []
        self._cut: list[int] = []
        #: By number of steps: remembered and running answers that have at least as many.
        self._reached: list[int] = []
        #: The share of all answers that reach each step.
        self._survival: list[float] = []
        self._news = 0
        #: Goes up when the results of `alive` change.
        self.edition = 0

    def learn(self, tokens: int, under_way: Iterable[int] = (), *, is_cut: bool = False) -> None:
        """Learn the length of an answer that has ended.

        Args:
            is_cut: `max_tokens` ended it, so its natural length is unknown.
            under_way: tokens of the running answers so far. Without them the estimate would be too short, because
                short answers end first.
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
        """The probability that an answer with `produced` tokens gets at least `more`, below its maximum `most`.

        It is the share among past answers that got as far. The prior counts as `GUESS_WEIGHT` further answers, so that
        a rare length is not impossible.
        """
        if produced + more >= most:
            return 0.0
        guess: float = (1.0 - more / (most - produced)) ** GUESS_SHAPE
        at, later = _nearest(produced), _nearest(produced + more)
        reached = self._reached[at] if at < len(self._reached) else 0
        # Beyond the longest ended answer, no answer is known to end.
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
        # The product-limit estimate, in which a running or a cut answer counts up to its length so far.
        # Source: Kaplan, Meier: Nonparametric Estimation from Incomplete Observations, 1958.
        survival, left = [], 1.0
        for step, count in enumerate(reached):
            survival.append(left)
            if step < len(self._ended) and count:
                left *= 1.0 - self._ended[step] / count
        self._reached, self._survival = reached, [*survival, left]

    def expected(self) -> ExpectedOutput | None:
        """The expected length of an answer for each maximum in `BOUNDS`; None while no answer has ended."""
        if not self._survival:
            return None
        # Expected tokens up to each step. Beyond the last step no answer is known to end.
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
    """Lengths for each lane. Args: answers: past answers, oldest first."""
    found = {lane: Lengths() for lane in Lane}
    for answer in answers:
        found[answer.lane].learn(answer.tokens, is_cut=answer.is_cut)
    return found
