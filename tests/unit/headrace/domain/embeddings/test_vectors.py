"""Packed vectors are those that OpenAI's SDK reads."""

import base64

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.embeddings.vectors import floats, of_answer, pack_floats, to_answer

NUMBERS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50)


@given(NUMBERS)
def test_a_packed_vector_is_read_as_it_was_written(numbers: list[float]) -> None:
    packed = pack_floats(numbers)
    assert floats(packed) == numbers
    # As the SDK reads it.
    assert numpy.frombuffer(base64.b64decode(packed), dtype="<f4").tolist() == numbers


@pytest.mark.parametrize("vectors", [[[1.0]], [[0.5, -0.25], [3.0, 0.0], [1e-30, -1e30]]])
def test_an_answer_has_one_vector_in_each_line(vectors: list[list[float]]) -> None:
    packed = [pack_floats(each) for each in vectors]
    answer = to_answer(packed)
    assert len(answer.splitlines()) == len(vectors)
    assert of_answer(answer) == packed
