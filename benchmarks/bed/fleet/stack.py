"""The stack: `headrace up --scale` with a settings file of its own, in which all times of the autoscaler are shortened
in proportion.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bed.fleet.arrivals import MEAN_TOKENS
from bed.testbed import Testbed, patched, wait_until

#: Jobs that a host runs at once, and the tokens a second of each.
SLOTS, TOKENS_PER_S = 4, 16
HOST_JOBS_PER_S = SLOTS * TOKENS_PER_S / MEAN_TOKENS
#: Tokens of the one prompt, with the model's chat template.
PROMPT_TOKENS = 7
PROVISION_S = 10.0
#: A worker process takes up to so long to start, on two cores on which five others start as well. A host that takes
#: longer than 1.5 times both is written off.
START_S = 10.0
#: `headrace up` starts nothing else but a web process, control and beat.
WITHOUT = ("overflow", "webhooks", "flower")
#: What takes mechanisms away.
OFF_FOLDER = Path(__file__).parent / "off"
#: Hosts are ready within so long after they were ordered; the machine may be busy.
LONGEST_START_S = 90.0
SETTINGS = """
observe_every_s = {observe_s}
autoscale_every_s = {autoscale_s}
sample_every_s = 1
{extra}

[pools.chat]
max_running = {slots}

[simulator]
decode_tokens_per_s = {tokens_per_s}
output_tokens = 4096 # so that an answer is as long as its job allows

[lanes.normal]
depth_cap = {cap}

[scaling]
policy = "{policy}"
host_type = "sim"
min_hosts = 1
max_hosts = {max_hosts}
fixed_hosts = {fixed_hosts}
window_s = {window_s}
cooldown_s = {cooldown_s}
stale_after_s = {stale_s}
drain_host_s = {drain_s}
up_depth = {up_depth}
{events}

[hosts.sim]
usd_per_hour = "4.10"
provision_s = {ready_s:g}
tokens_per_s = {host_tokens_per_s:.1f}
"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The autoscaler's settings: the defaults, in which 10 minutes are `window_s`.

    Attributes:
        cap: jobs that may wait. `reactive` adds hosts above a fifth of it, as by default.
        fixed_hosts: of the policy `fixed`.
        events: more lines of `[scaling]`.
        drains: without it, the oldest hosts are ended at once, and their workers hand their jobs back.
        slots: of a host, which share what it makes: the more there are, the longer a job takes.
        discounts: without it, each refused job is demand.
    """

    policy: str
    window_s: float
    max_hosts: int
    fixed_hosts: int
    cap: int
    events: str = ""
    drains: bool = True
    slots: int = SLOTS
    discounts: bool = True

    @property
    def first_hosts(self) -> int:
        """Hosts before any load."""
        return self.fixed_hosts if self.policy == "fixed" else 1

    @property
    def _settings(self) -> str:
        return SETTINGS.format(
            observe_s=self.window_s / 60,
            autoscale_s=self.window_s / 20,
            extra="" if self.drains else "drain_s = 0",
            slots=self.slots,
            tokens_per_s=SLOTS * TOKENS_PER_S / self.slots,
            cap=self.cap,
            policy=self.policy,
            max_hosts=self.max_hosts,
            fixed_hosts=self.fixed_hosts,
            window_s=self.window_s,
            cooldown_s=self.window_s / 2,
            # A tenth of the window would be less than what a busy machine may take for a sample.
            stale_s=max(10.0, self.window_s / 10),
            drain_s=1.5 * self.window_s if self.drains else 0,
            up_depth=self.cap // 5,
            events=self.events,
            ready_s=PROVISION_S + START_S,
            host_tokens_per_s=HOST_JOBS_PER_S * (PROMPT_TOKENS + MEAN_TOKENS),
        )

    @contextmanager
    def running(self) -> Iterator[Testbed]:
        """The stack, as soon as its first hosts are ready."""
        with TemporaryDirectory(prefix="headrace-fleet-") as folder:
            settings = Path(folder) / "headrace.toml"
            settings.write_text(self._settings)
            options = ("--scale", "--max-hosts", str(self.max_hosts), "--provision-s", f"{PROVISION_S:g}")
            off = [name for name, is_on in (("drain", self.drains), ("discount", self.discounts)) if not is_on]
            without = {"FLEET_OFF": ",".join(off), **patched(OFF_FOLDER)} if off else {}
            environment = {"HEADRACE_CONFIG": str(settings), **without}
            with Testbed(environment, WITHOUT, options) as bed:
                await_hosts(bed, self.first_hosts, LONGEST_START_S)
                yield bed


def await_hosts(bed: Testbed, number: int, longest_s: float) -> bool:
    """Wait until there are exactly this number of hosts, all of them ready; returns whether there were."""

    def is_so() -> bool:
        live = bed.sql("SELECT count(*), count(ready_at), count(drain_at) FROM hosts WHERE ended_at IS NULL")
        return live == [(number, number, 0)] and len(processes(bed.stack.report.pids)) == number

    return wait_until(is_so, longest_s, None)


def processes(pids: Mapping[str, Any]) -> list[str]:
    """The processes of hosts, by name."""
    return [name for name in pids if name.startswith("gpu@")]
