"""What breaks, and when: a seeded plan of faults, and how each is brought about in a `World`."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from bed.chaos.host_faults import HostFaults
from bed.chaos.world import COMES_BACK_S, LEASE_S, World
from headrace.errors import StackError
from headrace.stack.hosts import PREFIX
from tests.chaos.proxy import Mode, Proxy

#: The shortest time for which something hangs, is away or is slow, in seconds.
HICCUP_S = 0.5
#: How late each piece is where the network is slow.
SLOW_S = 0.1
#: How late a replica hears of its primary before that dies, and for how long it has done so, in seconds: what is under
#: way then was asked for and not confirmed, or confirmed and never sent.
REPLICA_LATE_S, REPLICA_LATE_FOR_S = 0.5, 2.5
#: Calls to the paid API that one fault of its meets.
PROVIDER_CALLS = 3
#: An overflow job's call comes, or it does not: its faults do not wait.
PROVIDER_KINDS = ("429", "500", "hang", "truncated")
PROCESSES = ("web", "gpu", "overflow", "webhooks", "plugins", "control", "beat")
NETWORK = (Mode.REFUSE, Mode.RESET, Mode.DROP, Mode.BLACKHOLE, Mode.DELAY)
#: Between the callers and the API: what was asked is done, perhaps, and no answer comes back.
CALLERS_NETWORK = (Mode.RESET, Mode.DROP)


@dataclass(frozen=True, slots=True)
class Fault:
    """One that happened. Attributes: began, ended: on the clock of the machine, which is Postgres's too."""

    kind: str
    began: float
    ended: float


class Faults:
    """The kinds of faults that a world can have, and a record of those it had.

    Attributes:
        struck_at: when the last primary died that a replica was promoted for, on the machine's clock.
    """

    def __init__(self, world: World, seed: int, submit_poison: Callable[[], None], outage_s: float) -> None:
        """Plan none. Args: outage_s: the longest time for which something is away."""
        self._world = world
        self._outage_s = outage_s
        self._random = random.Random(seed)
        self.happened: list[Fault] = []
        self.struck_at = 0.0
        self._kinds: dict[str, Callable[[], None]] = {
            **{f"kill_{name}": partial(self._kill, name) for name in PROCESSES},
            **HostFaults(world, self._outage).kinds,
            "freeze_gpu": self._freeze,
            "engine_death": submit_poison,
            "redis_kill": lambda: world.redis.restart(signal.SIGKILL),
            "redis_wiped": lambda: world.onlooker.flushall(),
            "redis_hang": self._hang_redis,
            "postgres_restart": lambda: world.postgres.restart(signal.SIGQUIT),
            "postgres_promoted": self._promote_postgres,
            "postgres_locked": self._lock,
            "redis_promoted": self._promote_redis,
            # The master's, and the primary's, whichever of the two that is then.
            **{f"redis_{mode}": partial(self._redis_network, mode) for mode in NETWORK},
            **{f"postgres_{mode}": partial(self._postgres_network, mode) for mode in NETWORK},
            **{f"web_{mode}": partial(self._network, world.web_proxy, mode) for mode in CALLERS_NETWORK},
            **{f"provider_{kind}": partial(self._fail_provider, kind) for kind in PROVIDER_KINDS},
        }

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind."""
        return tuple(self._kinds)

    @property
    def counts(self) -> Counter[str]:
        """How often each has happened."""
        return Counter(fault.kind for fault in self.happened)

    def plan(self, number: int, kinds: Sequence[str]) -> Iterator[str]:
        """So many of these kinds, each as often as any other, in a shuffled order."""
        left: list[str] = []
        for _ in range(number):
            if not left:
                left = self._random.sample(list(kinds), len(kinds))
            yield left.pop()

    def happen(self, kind: str) -> Fault:
        """Let one happen; returns once it is over."""
        began = time.time()
        self._kinds[kind]()
        self.happened.append(Fault(kind, began, time.time()))
        return self.happened[-1]

    def pause(self, mean_s: float) -> None:
        """Wait for a random time."""
        time.sleep(self._random.uniform(0.3, 1.7) * mean_s)

    def _outage(self) -> None:
        time.sleep(self._random.uniform(HICCUP_S, self._outage_s))

    def _kill_gpu(self, number: int = signal.SIGKILL) -> int:
        """Send one of the hosts' GPU workers that run a signal; returns its pid."""
        until = time.monotonic() + COMES_BACK_S
        while True:
            running = [name for host_id in sorted(self._world.gpus) if self._world.is_up(name := PREFIX + host_id)]
            # It may end by itself just then: its host drains.
            with suppress(KeyError):
                if running:
                    return self._world.stack.kill(self._random.choice(running), number)
            if time.monotonic() > until:
                raise StackError("No GPU worker runs.")
            time.sleep(0.1)

    def _kill(self, name: str) -> None:
        if name == "gpu":
            self._kill_gpu()
        elif name not in self._world.stack.report.left_out:
            self._world.kill(name)

    def _freeze(self) -> None:
        """Stop a GPU worker for longer than its lease: its jobs go elsewhere, and it does not know."""
        pid = self._kill_gpu(signal.SIGSTOP)
        time.sleep(LEASE_S + 2)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _hang_redis(self) -> None:
        self._world.redis.signal(signal.SIGSTOP)
        try:
            self._outage()
        finally:
            self._world.redis.signal(signal.SIGCONT)

    def _lock(self) -> None:
        with self._world.database() as db:
            db.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            self._outage()

    def _promote_postgres(self) -> None:
        """The primary's machine dies with what its standby has not heard yet, and then comes back as the standby."""
        self._world.cluster.lag(REPLICA_LATE_S)
        time.sleep(REPLICA_LATE_FOR_S)
        self.struck_at = time.time()
        self._world.cluster.promote()
        self._world.cluster.rejoin()

    def _promote_redis(self) -> None:
        """The master's machine dies with what its replica has not heard yet, and then comes back as the replica."""
        self._world.redis_group.lag(REPLICA_LATE_S)
        time.sleep(REPLICA_LATE_FOR_S)
        self.struck_at = time.time()
        self._world.redis_group.promote()
        self._world.redis_group.rejoin()

    def _redis_network(self, mode: Mode) -> None:
        self._network(self._world.redis.proxy, mode)

    def _postgres_network(self, mode: Mode) -> None:
        self._network(self._world.postgres_proxy, mode)

    def _network(self, proxy: Proxy, mode: Mode) -> None:
        proxy.delay_s = SLOW_S
        proxy.turn(mode)
        try:
            self._outage()
        finally:
            proxy.turn(Mode.OK)

    def _fail_provider(self, kind: str) -> None:
        self._world.order_provider_faults(kind, PROVIDER_CALLS)
