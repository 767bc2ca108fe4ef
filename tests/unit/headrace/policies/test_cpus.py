"""Which CPUs the processes of one machine keep to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.policies.cpus import CpuPlace, give_out, listed

PROCESSES = ("web", "gpu", "overflow")


def test_each_process_has_a_cpu_of_its_own_while_there_are_enough() -> None:
    places = give_out(range(4), PROCESSES, {})
    assert [places[name].cpus for name in PROCESSES] == [(0,), (1,), (2,)]


def test_a_process_without_a_cpu_of_its_own_uses_all() -> None:
    assert give_out((0, 1), PROCESSES, {})["overflow"].cpus == (0, 1)


def test_on_two_cpus_an_engine_has_one_and_all_processes_share_the_other() -> None:
    places = give_out((0, 1), PROCESSES, {"gpu": True})
    assert places == {"web": CpuPlace((0,)), "gpu": CpuPlace((0,), (1,)), "overflow": CpuPlace((0,))}


def test_processes_leave_the_cpus_of_an_engine() -> None:
    places = give_out(range(6), PROCESSES, {"gpu": True})
    assert places == {"web": CpuPlace((0,)), "gpu": CpuPlace((1,), (5, 4, 3)), "overflow": CpuPlace((2,))}


def test_an_engine_gets_all_its_cpus_or_none_and_leaves_one() -> None:
    places = give_out(range(4), ("web", "gpu", "gpu-small"), {"gpu": True, "gpu-small": True})
    # Its engine would run where it does.
    assert "gpu-small" not in places
    assert places["gpu"].of_engine == (3, 2)


def test_a_worker_whose_engine_runs_on_gpus_uses_any_cpu() -> None:
    assert give_out(range(4), PROCESSES, {"gpu": False}) == {"web": CpuPlace((0,)), "overflow": CpuPlace((1,))}


def test_one_cpu_is_not_given_out() -> None:
    assert give_out((3,), PROCESSES, {"gpu": True}) == {}


@given(st.integers(2, 40), st.integers(1, 6), st.lists(st.booleans(), max_size=6))
def test_no_cpu_of_an_engine_is_another_s_and_no_process_is_left_without(
    cpus: int, processes: int, computes: list[bool]
) -> None:
    names = [f"gpu-{no}" for no in range(processes)]
    places = give_out(range(cpus), names, dict(zip(names, computes, strict=False)))
    of_engines = [cpu for place in places.values() for cpu in place.of_engine]
    assert len(of_engines) == len(set(of_engines)) < cpus
    for place in places.values():
        assert place.cpus
        assert set(place.cpus).isdisjoint(of_engines)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("1", [1]), ("5,2-4", [5, 2, 3, 4]), ("nobind", []), ("auto", []), ("", []), ("0-1|2-3", []), ("1,", [])],
)
def test_a_list_of_cpus_is_read_as_vllm_reads_it(text: str, cpus: list[int]) -> None:
    assert listed(text) == cpus
