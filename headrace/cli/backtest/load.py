"""The load of a backtest: every request with its time and size. It is drawn once, and is the same for every policy."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from headrace.cli.backtest.trace import MINUTE_S, RateTrace, RequestTrace
from headrace.cli.backtest.world import OUTPUT_WEIGHT
from headrace.errors import ConfigError

# numpy is imported where a function needs it: an API host has none, and lists the commands without it.
if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

#: A load with more requests needs too much memory and time.
MOST_REQUESTS = 20_000_000
#: The peak of a load is its highest mean over so many minutes.
PEAK_MINUTES = 10
#: A copied request arrives up to so long before or after its original, so that copies make no bursts of their own.
COPY_SPREAD_S = 30.0
#: Where a trace has no dates, it starts on a Monday at midnight.
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The requests of a rate file.

    Attributes:
        prompt_tokens, output_tokens: their means.
        vary: True to draw each request's size from an exponential distribution: its spread is about that of Azure's
            traces. False for requests of equal size.
    """

    prompt_tokens: float = 1155.0
    output_tokens: float = 211.0
    vary: bool = True

    @property
    def work(self) -> float:
        """The mean work of a request."""
        return self.prompt_tokens + OUTPUT_WEIGHT * self.output_tokens


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """Requests, sorted by time.

    Attributes:
        start: the date of second 0.
        seconds: the length of the trace.
        times_s: when each request arrives.
        work: the work of each; see `World.tokens_per_s`.
        tokens: the tokens of each, prompt and answer. Policies count these, as the product does.
        demand: the true offered work per second of each minute, before chance drew the requests of a rate file.
        scale: by how much `--peak-hosts` changed the trace.
    """

    start: datetime
    seconds: float
    times_s: "Floats"
    work: "Floats"
    tokens: "Floats"
    demand: "Floats"
    scale: float

    @property
    def tokens_per_work(self) -> float:
        """Tokens of a mean unit of work: from it follow the tokens that a saturated host serves."""
        return float(self.tokens.sum() / self.work.sum())

    @property
    def peak(self) -> float:
        """The highest mean of offered work per second over `PEAK_MINUTES`."""
        return float(smooth(self.demand, PEAK_MINUTES).max())


def offered_load(
    trace: RequestTrace | RateTrace, sizes: Sizes, seed: int, peak: float | None = None, start: datetime | None = None
) -> OfferedLoad:
    """The load of a trace.

    Args:
        sizes: of the requests of a rate file.
        peak: scale the load so that its peak is so much work per second; see `OfferedLoad.peak`.
        start: the date of the trace's start, in place of its own.
    Raises:
        ConfigError: too many requests.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    demand = _demand(trace, sizes)
    scale = 1.0 if peak is None else peak / float(smooth(demand, PEAK_MINUTES).max())
    count = len(trace.times_s) if isinstance(trace, RequestTrace) else sum(trace.per_minute)
    if count * scale > MOST_REQUESTS:
        message = f"The load has {count * scale:,.0f} requests; at most {MOST_REQUESTS:,} can be simulated."
        raise ConfigError(f"{message} Scale it down with --peak-hosts, or shorten the trace.")
    if isinstance(trace, RequestTrace):
        times, work, tokens = _copied(trace, scale, random)
        start = start or trace.start
    else:
        times, work, tokens = _drawn(trace, sizes, scale, random)
    if not len(times):
        raise ConfigError("The load has no requests left. Scale it up with --peak-hosts.")
    order = np.argsort(times, kind="stable")
    return OfferedLoad(
        start=start or MONDAY,
        seconds=len(demand) * MINUTE_S,
        times_s=times[order],
        work=work[order],
        tokens=tokens[order],
        demand=demand * scale,
        scale=scale,
    )


def smooth(demand: "Floats", minutes: int) -> "Floats":
    """The mean over so many minutes around each minute; at the ends, over those that exist."""
    import numpy as np

    sums = np.concatenate(([0.0], np.cumsum(demand)))
    at = np.arange(len(demand))
    # The same number of minutes everywhere, so that the first minute alone is no peak.
    minutes = min(minutes, len(demand))
    first = np.clip(at - minutes // 2, 0, len(demand) - minutes)
    means: Floats = (sums[first + minutes] - sums[first]) / minutes
    return means


def _demand(trace: RequestTrace | RateTrace, sizes: Sizes) -> "Floats":
    """The offered work per second of each minute."""
    import numpy as np

    if isinstance(trace, RateTrace):
        rates: Floats = np.asarray(trace.per_minute) / MINUTE_S * sizes.work
        return rates
    work = np.asarray(trace.prompt_tokens) + OUTPUT_WEIGHT * np.asarray(trace.output_tokens)
    minutes = (np.asarray(trace.times_s) // MINUTE_S).astype(int)
    if not work.any():
        raise ConfigError("The trace's requests have no tokens: its columns of tokens hold only zeros.")
    return np.bincount(minutes, work) / MINUTE_S


def _drawn(trace: RateTrace, sizes: Sizes, scale: float, random: "Generator") -> "tuple[Floats, Floats, Floats]":
    """Times, work and tokens of requests that arrive by chance (Poisson) at the rate of each minute."""
    import numpy as np

    counts = random.poisson(np.asarray(trace.per_minute) * scale)
    minutes = np.repeat(np.arange(len(counts), dtype=float), counts)
    times = (minutes + random.random(len(minutes))) * MINUTE_S
    factors = random.exponential(size=len(times)) if sizes.vary else np.ones(len(times))
    return times, factors * sizes.work, factors * (sizes.prompt_tokens + sizes.output_tokens)


def _copied(trace: RequestTrace, scale: float, random: "Generator") -> "tuple[Floats, Floats, Floats]":
    """Times, work and tokens of the trace's requests, each as often as the scale says: copied or left out by chance."""
    import numpy as np

    times = np.asarray(trace.times_s)
    prompt, output = np.asarray(trace.prompt_tokens), np.asarray(trace.output_tokens)
    counts = np.floor(scale + random.random(len(times))).astype(int)
    chosen = np.repeat(np.arange(len(times)), counts)
    is_copy = np.concatenate(([False], chosen[1:] == chosen[:-1])) if len(chosen) else np.zeros(0, dtype=bool)
    moved = times[chosen] + is_copy * random.uniform(-COPY_SPREAD_S, COPY_SPREAD_S, len(chosen))
    # An arrival that would be before the start or after the end is reflected into the trace.
    end = (times[-1] // MINUTE_S + 1) * MINUTE_S
    moved = np.abs(moved)
    moved = np.where(moved >= end, 2 * end - moved - 1e-6, moved)
    return moved, (prompt + OUTPUT_WEIGHT * output)[chosen], (prompt + output)[chosen]
