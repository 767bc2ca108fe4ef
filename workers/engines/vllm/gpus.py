"""How an engine's GPUs are used, as their driver says by NVML. vLLM has a copy of NVIDIA's own module for it."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

from workers.engines.base import GpuUse

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of one engine.

    Attributes:
        nvml: NVIDIA's module, started; None where there is none.
        handles: NVML's, one for each GPU.
    """

    nvml: Any = None
    handles: Sequence[Any] = ()

    @classmethod
    def of(cls, number: int) -> Self:
        """The first GPUs that this process sees; none if NVML does not start or does not know them."""
        from vllm.utils.import_utils import import_pynvml

        nvml = import_pynvml()
        # vLLM counts the GPUs that this variable names, NVML all of the machine.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(number)))  # noqa: TID251
        try:
            nvml.nvmlInit()
            return cls(nvml, [_handle(nvml, name.strip()) for name in visible.split(",")[:number]])
        except nvml.NVMLError as error:
            log.warning("gpus_not_measured", extra={"error": str(error)})
            return cls()

    def use(self) -> GpuUse:
        """How they are used now."""
        if self.nvml is None:
            return GpuUse()
        rates = self._each(self.nvml.nvmlDeviceGetUtilizationRates)
        memory = self._each(self.nvml.nvmlDeviceGetMemoryInfo)
        milliwatts = self._each(self.nvml.nvmlDeviceGetPowerUsage)
        return GpuUse(
            busy=fmean(each.gpu for each in rates) / 100 if rates else None,
            memory=sum(each.used for each in memory) / sum(each.total for each in memory) if memory else None,
            watts=sum(milliwatts) / 1000 if milliwatts else None,
        )

    def _each(self, ask: Callable[[Any], Any]) -> list[Any]:
        """What the driver says of each; empty if one of them does not say it: a part of a GPU (MIG), for example."""
        try:
            return [ask(handle) for handle in self.handles]
        except self.nvml.NVMLError:
            return []


def _handle(nvml: Any, name: str) -> Any:
    """Args: name: a number, or the UUID of a GPU or of a part of one."""
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
