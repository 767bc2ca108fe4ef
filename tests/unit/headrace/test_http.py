"""How a body that comes in parts is split into lines."""

from itertools import pairwise

import hypothesis
from hypothesis import strategies as st

from headrace.http import lines_of


@hypothesis.given(
    st.text("a\n\r\u2028\0", max_size=40).map(str.encode), st.lists(st.integers(min_value=0, max_value=99), max_size=9)
)
def test_wherever_the_parts_end_the_lines_are_the_same(content: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    lines = list(lines_of(content[begin:end] for begin, end in pairwise(places)))
    assert b"".join(lines) == content
    assert all(line.find(b"\n") == len(line) - 1 for line in lines[:-1])
    assert not lines or lines[-1].find(b"\n") in (-1, len(lines[-1]) - 1)


class Part(bytes):
    """A part of a line; to add it to others is an error, since that copies the line each time."""

    def __radd__(self, _: bytes) -> bytes:
        raise AssertionError


def test_a_line_of_many_parts_is_put_together_once() -> None:
    whole = [b"x" * 1000 for _ in range(100)]
    assert list(lines_of(map(Part, [*whole, b"y\nz"]))) == [b"".join(whole) + b"y\n", b"z"]
