"""How long answers get: a distribution for each lane, learned from those that have ended. Pure."""

from collections import deque
from collections.abc import Mapping

from headrace.jobs import Lane

#: Answers of one lane that are remembered; older ones say less about what comes.
REMEMBERED = 2000
#: For how many answers the guess stands that holds while none has ended: any length up to the job's maximum is alike.
GUESS_WEIGHT = 8.0
#: Lengths are told apart in steps of so many tokens.
STEP_TOKENS = 8
#: What was learned counts from when it is this share of what is remembered: the distribution changes by little at once.
NEWS_SHARE = 1 / 32


class Lengths:
    """The answers of one lane. Not safe for many threads."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque()
        self._counts: list[int] = []
        #: How many of the remembered have at least so many steps.
        self._longer: list[int] = []
        self._news = 0
        #: Goes up when `alive` begins to say something else.
        self.edition = 0

    def learn(self, tokens: int) -> None:
        """An answer has ended by itself, or at its maximum, after so many tokens."""
        step = tokens // STEP_TOKENS
        self._counts.extend([0] * (step + 1 - len(self._counts)))
        self._counts[step] += 1
        self._recent.append(step)
        if len(self._recent) > REMEMBERED:
            self._counts[self._recent.popleft()] -= 1
        self._news += 1
        if self._news >= NEWS_SHARE * len(self._recent):
            self._publish()

    def _publish(self) -> None:
        self._news = 0
        self.edition += 1
        total, longer = 0, [0] * len(self._counts)
        for at in range(len(self._counts) - 1, -1, -1):
            total += self._counts[at]
            longer[at] = total
        self._longer = longer

    def alive(self, produced: int, more: int, most: int) -> float:
        """The chance that an answer that has `produced` tokens has at least `more` to come, below its maximum `most`.

        The share of those that got as far, with the guess as so many further answers: a rare length is not taken for
        an impossible one.
        """
        if produced + more >= most:
            return 0.0
        guess = 1.0 - more / (most - produced)
        reached, went_on = self._at_least(produced), self._at_least(produced + more)
        return (went_on + GUESS_WEIGHT * guess) / (reached + GUESS_WEIGHT)

    def _at_least(self, tokens: int) -> int:
        step = (tokens + STEP_TOKENS // 2) // STEP_TOKENS
        return self._longer[step] if step < len(self._longer) else 0


def by_lane() -> Mapping[Lane, Lengths]:
    """One for each lane."""
    return {lane: Lengths() for lane in Lane}
