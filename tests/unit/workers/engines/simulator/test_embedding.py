"""The simulator's vectors: their length, and what is shortened."""

import math

import pytest

from headrace.domain.embeddings.vectors import floats, of_answer
from headrace.errors import PromptRejected
from workers.engines.simulator.embedding import DIMENSIONS, vectors


@pytest.mark.parametrize("dimensions", [1, 64, DIMENSIONS])
def test_a_vector_has_as_many_dimensions_as_are_asked_for_and_a_length_of_1(dimensions: int) -> None:
    made = [floats(each) for each in of_answer(vectors([[1, 2], [3]], dimensions))]
    assert [len(each) for each in made] == [dimensions] * 2
    assert [math.hypot(*each) for each in made] == pytest.approx([1.0, 1.0], abs=1e-6)


def test_a_shortened_vector_points_where_the_whole_one_does() -> None:
    [whole], [short] = (of_answer(vectors([[7]], dimensions)) for dimensions in (None, 16))
    begin = floats(whole)[:16]
    assert floats(short) == pytest.approx([number / math.hypot(*begin) for number in begin], abs=1e-6)


def test_texts_that_share_tokens_are_alike() -> None:
    one, alike, other = (floats(each) for each in of_answer(vectors([[1, 2, 3, 4], [4, 1, 2, 5], [6, 7, 8, 9]], None)))
    assert sum(a * b for a, b in zip(one, alike, strict=True)) > 0.6
    assert abs(sum(a * b for a, b in zip(one, other, strict=True))) < 0.3


def test_more_dimensions_than_there_are_are_refused() -> None:
    with pytest.raises(PromptRejected) as raised:
        vectors([[1]], DIMENSIONS + 1)
    assert raised.value.param == "dimensions"
