"""The machine's GPUs, found without torch: collecting the tests must cost nothing on a machine without one."""

import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import pytest

MIB = 2**20
_QUERY = ["nvidia-smi", "--query-gpu=memory.total,compute_cap", "--format=csv,noheader,nounits"]


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, as its driver reports it. `capability`: of its generation; 8.9 and newer compute in 8 bits."""

    memory_bytes: int
    capability: float


@cache
def devices() -> tuple[Device, ...]:
    """Every NVIDIA GPU of this machine; none without a driver."""
    try:
        listed = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = (line.split(",") for line in listed.splitlines())
    return tuple(Device(int(memory) * MIB, float(capability)) for memory, capability in rows)


def missing() -> str | None:
    """What this machine lacks for these tests, in a sentence; None where they can run."""
    try:
        version("vllm")
    except PackageNotFoundError:
        lacks_vllm = "vLLM for CUDA is not installed (requirements/gpu.txt)"
    else:
        lacks_vllm = ""
    lacks_gpu = "" if devices() else "nvidia-smi lists no GPU"
    return " and ".join(filter(None, (lacks_gpu, lacks_vllm))) or None


#: What every module here is marked with.
on_a_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(missing() is not None, reason=f"needs an NVIDIA GPU: {missing()}"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own.
]


def needs_fp8() -> None:
    """Skip the running test on a GPU that is too old for it."""
    if devices()[0].capability < 8.9:
        pytest.skip(f"8-bit arithmetic needs compute capability 8.9; this GPU has {devices()[0].capability}")
