"""Which port a process gets."""

from headrace.stack.ports import TRIES, pick


def test_the_preferred_port_is_taken_when_it_is_free() -> None:
    assert pick(8000, is_free=lambda port: True) == 8000


def test_the_next_free_port_is_taken_when_the_preferred_one_is_in_use_or_promised() -> None:
    assert pick(8000, taken={8001}, is_free=lambda port: port != 8000) == 8002


def test_any_port_will_do_when_all_near_ones_are_in_use() -> None:
    tried: list[int] = []

    def is_free(port: int) -> bool:
        tried.append(port)
        return False

    assert pick(8000, is_free=is_free, any_port=lambda: 40_000) == 40_000
    assert tried == list(range(8000, 8000 + TRIES))


def test_no_port_above_the_last_one_is_tried() -> None:
    assert pick(65_535, is_free=lambda port: port > 65_535, any_port=lambda: 40_000) == 40_000
