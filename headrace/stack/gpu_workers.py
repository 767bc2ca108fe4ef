"""The GPU workers that one machine always runs: one for each pool with an engine of its own. Starts nothing."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from headrace.config import Settings
from headrace.stack.models.model import PreparedModel

#: The Procfile's process of a GPU worker. Here it serves the first pool, or the one that `HEADRACE_POOL` names.
GPU = "gpu"
#: The metrics port of the first worker beside `gpu`.
MORE_METRICS_PORT = 17_464
_POOLS = "HEADRACE_POOLS"
#: What overrides the served pool's settings, and would override those of another pool in its own worker.
_OF_THE_SERVED_POOL = ("HEADRACE_MODEL", "HEADRACE_MODEL_DIR", "HEADRACE_ENGINE")


@dataclass(frozen=True, slots=True)
class GpuWorkers:
    """The workers' processes by name.

    Attributes:
        pools: by process name, the pool that it serves: `gpu`, and `gpu-POOL` for each other pool.
    """

    pools: Mapping[str, str]

    @classmethod
    def of(cls, settings: Settings) -> "GpuWorkers":
        """One for each pool that is not the paid API's."""
        return cls({GPU if pool == settings.pool else f"{GPU}-{pool}": pool for pool in settings.own_pools})

    @property
    def others(self) -> tuple[str, ...]:
        """The processes beside `gpu`."""
        return tuple(name for name in self.pools if name != GPU)

    def among(self, lines: Iterable[str]) -> list[str]:
        """The Procfile's processes, with the workers of other pools behind `gpu`."""
        return [each for name in lines for each in ((GPU, *self.others) if name == GPU else (name,))]

    def metrics_ports(self, apart: int) -> dict[str, int]:
        """The preferred metrics port of each other worker. Args: apart: between one and the next."""
        return {name: MORE_METRICS_PORT + no * apart for no, name in enumerate(self.others)}

    def left_out(self, without: Collection[str], *, is_scaled: bool) -> dict[str, str]:
        """The other workers that do not run, and why.

        Args:
            without: processes that are left out as asked.
            is_scaled: hosts come and go in place of `gpu`.
        """
        if GPU in without:
            return dict.fromkeys(self.others, f"as {GPU} is")
        if is_scaled:
            return dict.fromkeys(self.others, "--scale runs hosts of the served pool alone")
        return {}

    def env(self, name: str) -> dict[str, str]:
        """What tells this process its pool."""
        return {"HEADRACE_POOL": self.pools[name]} if name in self.others else {}


def pool_variables(
    settings: Settings, models: Mapping[str, PreparedModel], inherited: Mapping[str, str]
) -> dict[str, str]:
    """The environment, with every pool as it is served here, so that all processes know all pools alike.

    Args:
        models: by pool, the model that its engine loads.
        inherited: the environment. Its variables of single pools are in the settings already.
    """
    rest = {name: value for name, value in inherited.items() if not name.upper().startswith(_POOLS)}
    pools = {
        name: pool.model_dump(mode="json", exclude_unset=True)
        | ({"model_dir": str(models[name].folder)} if name in models else {})
        for name, pool in settings.pools.items()
    }
    return rest | dict.fromkeys(_OF_THE_SERVED_POOL, "") | {_POOLS: json.dumps(pools)}
