"""Inputs are stored as messages, and read back as they were given."""

import pytest

from headrace.domain.embeddings.inputs import are_inputs, text_input, token_ids, token_input
from headrace.domain.prompts import Message


@pytest.mark.parametrize("ids", [[0], [101, 2054, 102], list(range(1000))])
def test_token_ids_come_back_as_they_were_given(ids: list[int]) -> None:
    assert token_ids(token_input(ids)) == ids


def test_a_conversation_is_no_list_of_inputs() -> None:
    assert are_inputs([text_input("user: hi"), token_input([1])])
    assert not are_inputs([Message("user", "hi")])
    assert not are_inputs([text_input("hi"), Message("user", "hi")])
    assert not are_inputs([])
