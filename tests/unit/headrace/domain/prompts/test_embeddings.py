"""The inputs and the vectors of an embedding job."""

import base64

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.prompts import Message
from headrace.domain.prompts.embeddings import (
    are_inputs,
    floats,
    of_answer,
    pack_floats,
    text_input,
    to_answer,
    token_ids,
    token_input,
)


@pytest.mark.parametrize("ids", [[0], [101, 2054, 102], list(range(1000))])
def test_token_ids_come_back_as_they_were_given(ids: list[int]) -> None:
    assert token_ids(token_input(ids)) == ids


def test_a_conversation_is_no_list_of_inputs() -> None:
    assert are_inputs([text_input("user: hi"), token_input([1])])
    assert not are_inputs([Message("user", "hi")])
    assert not are_inputs([text_input("hi"), Message("user", "hi")])
    assert not are_inputs([])


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
