"""What breaks around hosts: the control process that orders them, what starts them, beat, and a host that drains."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import sqlalchemy as sa

from bed.chaos.host_proxy import CallMode
from bed.chaos.world import STALE_S, World
from headrace.errors import StackError
from headrace.store.fleet import host_list

#: The longest time until a call meets a fault.
PATIENCE_S = 120.0
#: How long ticks that are under way when beat stops take to be done.
TICK_S = 3.0
_BUSIEST = """
    SELECT h.id FROM hosts h LEFT JOIN workers w ON w.host_id = h.id
    LEFT JOIN jobs j ON j.worker_id = w.id AND j.state = 'running'
    WHERE h.ended_at IS NULL AND h.drain_at IS NULL GROUP BY h.id ORDER BY count(j.id) DESC LIMIT 1
"""
_UNRECORDED = "SELECT FROM hosts WHERE ordered_at IS NULL AND ended_at IS NULL"
_TICKED = (
    "SELECT FROM decisions WHERE at > to_timestamp(%s) UNION ALL SELECT FROM queue_samples WHERE at > to_timestamp(%s)"
)


class HostFaults:
    """The kinds of faults around hosts. Each makes sure that it happens as it is called, or raises StackError.

    Attributes:
        kinds: what brings each about.
    """

    def __init__(self, world: World, outage: Callable[[], None]) -> None:
        """Plan none. Args: outage: waits for as long as something is away."""
        self._world, self._outage = world, outage
        self.kinds: dict[str, Callable[[], None]] = {
            "control_killed_ordering": self._kill_control,
            "host_dies_draining": self._kill_draining,
            "beat_stopped": self._stop_beat,
            **{f"actuator_{mode}s": partial(self._fail_actuator, mode) for mode in (CallMode.FAIL, CallMode.HANG)},
            "actuator_lies": self._lie,
        }

    def _kill_control(self) -> None:
        """Kill the control process when a host is ordered and no lease says so."""
        if not self._world.moves_hosts:
            return
        self._world.until_hosts_agree()
        with self._world.host_proxy.failing(CallMode.HOLD):
            self._drain()
            self._until_met()
            self._world.kill("control")
            if not self._world.sql(_UNRECORDED):
                raise StackError("The order was recorded before the control process died.")

    def _kill_draining(self) -> None:
        """Kill the worker of a host that drains, before it has finished what it runs."""
        while self._world.moves_hosts:
            self._world.until_hosts_agree()
            host_id = self._drain()
            # An idle one may be ended already.
            with suppress(KeyError):
                self._world.stack.kill(f"gpu@{host_id}")
            if self._world.sql("SELECT FROM hosts WHERE id = %s AND released_at IS NULL", host_id):
                return

    def _stop_beat(self) -> None:
        """Stop beat for so long that the newest observation is too old to remove a host by."""
        self._world.kill("beat", signal.SIGSTOP)
        stopped_at = time.time()
        try:
            time.sleep(TICK_S + STALE_S)
            ticked = self._world.sql(_TICKED, stopped_at + TICK_S, stopped_at + TICK_S)
        finally:
            self._world.kill("beat", signal.SIGCONT)
        if ticked:
            raise StackError("There were ticks while beat was stopped.")

    def _fail_actuator(self, mode: CallMode) -> None:
        """Let every call of the supervisor fail while a host is to be ordered."""
        if self._world.moves_hosts:
            self._world.until_hosts_agree()
            with self._world.host_proxy.failing(mode):
                self._drain()
                self._until_met()
                self._outage()

    def _lie(self) -> None:
        """Let the supervisor list no host while all of them live."""
        if self._world.moves_hosts:
            with self._world.host_proxy.failing(CallMode.LIE):
                self._until_met()
                self._outage()

    def _drain(self) -> str:
        """Drain the busiest host by hand, so that another is ordered in its place; returns its id."""
        [(host_id,)] = self._world.sql(_BUSIEST)
        engine = sa.create_engine(self._world.postgres.kind.url, poolclass=sa.NullPool)
        with engine.begin() as db:
            host_list.drain_by_hand(db, str(host_id))
        return str(host_id)

    def _until_met(self) -> None:
        if not self._world.host_proxy.until_met(PATIENCE_S):
            raise StackError("The control process did not call the supervisor.")
