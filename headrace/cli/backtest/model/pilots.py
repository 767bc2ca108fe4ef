"""The product's own policies as pilots: `headrace.policies.scaling.decide`, fed with what it would have recorded."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from headrace.cli.backtest.model.memory import Memory
from headrace.cli.backtest.model.world import World
from headrace.config import ScalingSettings
from headrace.domain.scaling import History, Moment, PoolHosts
from headrace.policies.scaling import decide, forecast

#: The mechanisms of `predictive` that `--off` can leave out.
MECHANISMS = ("season", "trend", "prices", "hold", "errors")


def settings_for(world: World, policy: str, fixed_hosts: int) -> ScalingSettings:
    """The product's default settings, with this world's bounds and margin."""
    own = {"min_hosts": world.min_hosts, "max_hosts": world.max_hosts, "staffing_beta": world.beta}
    return ScalingSettings.model_validate({"policy": policy, "fixed_hosts": fixed_hosts, **own})


class ProductPilot:
    """Lets the product decide.

    Attributes:
        off: the mechanisms that are left out.
    """

    def __init__(self, settings: ScalingSettings, off: Collection[str] = ()) -> None:
        self._settings = settings
        self._off = frozenset(off)
        self._memory = Memory(settings.window_s)

    def target(self, moments: Sequence[Moment], hosts: PoolHosts, now: datetime) -> int:
        """See `Pilot`."""
        history = self._memory.history(tuple(moments), hosts.tokens_per_s or 1.0, now)
        history, hosts = self._without(history, hosts)
        with _without_trend() if "trend" in self._off else _as_it_is():
            decision = decide(history, hosts, self._settings, now)
        self._memory.note(decision, now)
        return decision.target

    def _without(self, history: History, hosts: PoolHosts) -> tuple[History, PoolHosts]:
        """Take from the inputs what the switched-off mechanisms go by."""
        if "season" in self._off:
            history = replace(history, season=None)
        if "errors" in self._off:
            history = replace(history, errors=())
        if "hold" in self._off:
            # The need of now, for as long as a removal asks for: nothing but the present speaks against it.
            history = replace(history, needs=tuple(replace(past, need=0, spare_need=0) for past in history.needs))
        if "prices" in self._off:
            hosts = replace(hosts, usd_per_hour=None, spill_usd=None)
        return history, hosts


@contextmanager
def _without_trend() -> Iterator[None]:
    """No trend is significant. The level is no input of a decision, so this cannot be taken from the inputs."""
    sigmas, forecast.TREND_SIGMAS = forecast.TREND_SIGMAS, math.inf
    try:
        yield
    finally:
        forecast.TREND_SIGMAS = sigmas


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield
