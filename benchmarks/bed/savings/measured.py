"""What became of the questions of one span of time: waits, who answered, tokens, money and wrong answers. Knows SQL."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bed.savings.questions import is_simple, meaning_of
from bed.savings.users import Submitted
from bed.testbed import Testbed

#: Of the jobs of a span: by pool, the wait until the start that 95 % of those stay within that an engine answered.
_WAITS = """
    SELECT pool, percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - created_at))::float
    FROM jobs WHERE created_at BETWEEN to_timestamp(%s) AND to_timestamp(%s) AND attempt > 0 AND started_at IS NOT NULL
    GROUP BY pool
"""
_ENDS = """
    SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state <> 'succeeded') FROM jobs
    WHERE created_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)
"""
#: Tokens that engines read and wrote, of all attempts; and what all of it cost, lost attempts included.
_TOKENS = """
    SELECT coalesce(sum(a.prompt_tokens), 0), coalesce(sum(a.output_tokens), 0) FROM attempts a
    JOIN jobs j ON j.id = a.job_id WHERE j.created_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)
"""
_USD = """
    SELECT coalesce(sum(l.usd), 0)::float FROM ledger l JOIN jobs j ON j.id = l.job_id
    WHERE j.created_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)
"""
_SERVED = """
    SELECT t.messages->-1->>'content', t.answer, j.pool, coalesce(j.cache, 'miss') FROM jobs j
    JOIN job_texts t ON t.job_id = j.id
    WHERE j.state = 'succeeded' AND j.created_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)
"""
#: What the cache column says of a job that an engine answered.
RAN = "miss"


@dataclass(frozen=True, slots=True)
class Trial:
    """One load for a while.

    Attributes:
        wait_s: the p95 wait of jobs that an engine answered, in the pool where it is longest.
        refused: requests that were not accepted, and accepted ones that got no answer.
        ways: answers by what gave them: `hit`, `shared`, `semantic`, or the pool whose engine did.
        wrong: answers to another question, and hard questions that the small model answered; by what gave them.
        late_s: how late the client was at most: it must not be the limit.
    """

    per_s: float
    asked: int
    wait_s: float
    refused: int
    ways: Mapping[str, int]
    wrong: Mapping[str, int]
    prompt_tokens: int
    output_tokens: int
    usd: float
    late_s: float

    @property
    def tokens_each(self) -> float:
        """Tokens that engines read and wrote for one request."""
        return (self.prompt_tokens + self.output_tokens) / self.asked

    @property
    def usd_each(self) -> float:
        """What one request cost."""
        return self.usd / self.asked

    @property
    def answered(self) -> int:
        """All answers."""
        return sum(self.ways.values())

    def share(self, way: str) -> float:
        """The part of the answers that this gave."""
        return self.ways.get(way, 0) / self.answered if self.answered else 0.0


def trial_of(bed: Testbed, submitted: Submitted, per_s: float) -> Trial:
    """Look at what was submitted, once all of it has ended."""
    span = submitted.began, submitted.ended
    [(answered, open_or_failed)] = bed.sql(_ENDS, *span)
    [(prompt_tokens, output_tokens)] = bed.sql(_TOKENS, *span)
    ways, wrong = served(bed.sql(_SERVED, *span))
    assert sum(ways.values()) == answered
    return Trial(
        per_s,
        submitted.statuses.total(),
        max((float(wait) for _, wait in bed.sql(_WAITS, *span)), default=0.0),
        submitted.refused + open_or_failed,
        ways,
        wrong,
        int(prompt_tokens),
        int(output_tokens),
        float(bed.sql(_USD, *span)[0][0]),
        submitted.late_s,
    )


def served(rows: Sequence[tuple[Any, ...]]) -> tuple[dict[str, int], dict[str, int]]:
    """How many answers each way gave, and how many of them are wrong. Args: rows: question, answer, pool, cache."""
    ways, wrong = Counter[str](), Counter[str]()
    for question, answer, pool, cache in rows:
        way, meaning = (pool if cache == RAN else cache), meaning_of(question)
        assert meaning is not None, question
        ways[way] += 1
        is_right = hashlib.sha256(meaning.encode()).hexdigest() in answer
        wrong[way] += not is_right or (pool == "fast" and not is_simple(meaning))
    return dict(ways), dict(+wrong)
