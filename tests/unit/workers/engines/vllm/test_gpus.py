"""What vLLM's copy of NVIDIA's module makes of a driver's answers, and of a machine without a driver."""

import ctypes
from importlib.util import find_spec
from typing import Any

import pytest

from workers.engines.base import GpuUse
from workers.engines.vllm.gpus import Gpus

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not available on this platform"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own.
]

NOT_SUPPORTED, NOT_FOUND = 3, 6
#: By number: percent of the time, bytes of 80 GB that are taken, milliwatts. The last one is a part of a GPU.
DEVICES = ((90, 72_000_000_000, 650_000), (40, 8_000_000_000, 150_500), (None, 20_000_000_000, None))
UUIDS = ("GPU-8f1a", "GPU-77c2", "MIG-0b3e")


class Driver:
    """Stands for `libnvidia-ml.so.1`: its functions write where they are told to, and return a status."""

    def nvmlInitWithFlags(self, flags: int) -> int:
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        if index.value >= len(DEVICES):
            return NOT_FOUND
        ctypes.memmove(handle, ctypes.byref(ctypes.c_void_p(index.value + 1)), ctypes.sizeof(ctypes.c_void_p))
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:
        name = uuid.value.decode()
        return self.nvmlDeviceGetHandleByIndex_v2(
            ctypes.c_uint(UUIDS.index(name) if name in UUIDS else len(UUIDS)), handle
        )

    def nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:
        busy, _, _ = _device(handle)
        if busy is None:
            return NOT_SUPPORTED
        rates._obj.gpu = busy
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        memory._obj.total, memory._obj.used = 80_000_000_000, _device(handle)[1]
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: Any, milliwatts: Any) -> int:
        _, _, power = _device(handle)
        if power is None:
            return NOT_SUPPORTED
        milliwatts._obj.value = power
        return 0


def _device(handle: Any) -> tuple[int | None, int, int | None]:
    return DEVICES[(ctypes.cast(handle, ctypes.c_void_p).value or 0) - 1]


@pytest.fixture
def _driver(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.third_party import pynvml

    monkeypatch.setattr(pynvml, "nvmlLib", Driver())
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


@pytest.mark.usefixtures("_driver")
@pytest.mark.parametrize(
    ("number", "visible", "use"),
    [
        (1, None, GpuUse(0.9, 0.9, 650.0)),
        (1, "", GpuUse(0.9, 0.9, 650.0)),
        (2, None, GpuUse(0.65, 0.5, 800.5)),
        (1, "1", GpuUse(0.4, 0.1, 150.5)),
        (2, "1, 0", GpuUse(0.65, 0.5, 800.5)),
        (1, "GPU-77c2,GPU-8f1a", GpuUse(0.4, 0.1, 150.5)),
        (1, "MIG-0b3e", GpuUse(None, 0.25, None)),
        (2, "0,2", GpuUse(None, 0.575, None)),
    ],
)
def test_an_engine_s_own_gpus_are_read(
    monkeypatch: pytest.MonkeyPatch, number: int, visible: str | None, use: GpuUse
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Gpus.of(number).use() == use


@pytest.mark.usefixtures("_driver")
@pytest.mark.parametrize("visible", ["7", "GPU-none"])
def test_gpus_that_the_driver_does_not_know_are_not_measured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Gpus.of(1).use() == GpuUse()
    assert [record.message for record in caplog.records] == ["gpus_not_measured"]


def test_without_a_driver_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vllm.third_party import pynvml

    def absent(*_: object) -> None:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", absent)
    assert Gpus.of(1).use() == GpuUse()
    assert [record.message for record in caplog.records] == ["gpus_not_measured"]
