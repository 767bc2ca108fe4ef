"""The windows in which a text is measured: each token is measured once, with tokens before it as its context."""

import pytest

from workers.engines.vllm.surprise import CONTEXT_TOKENS, WINDOW_TOKENS, Nats, joined, windows


def measured(window: list[int]) -> Nats:
    """Each token's own number; the first is not predicted."""
    return [None, *map(float, window[1:])]


@pytest.mark.parametrize("most", [2, 3, 7, WINDOW_TOKENS, 10_000])
@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 8, 255, 256, 257, 448, 449, 2000])
def test_each_token_is_measured_once_and_in_order(tokens: int, most: int) -> None:
    text = list(range(tokens))
    cut = windows(text, most)

    assert all(len(window) <= min(most, WINDOW_TOKENS) for window in cut)
    # A window of two or three tokens has no room for context.
    lost = {window[0] for window in cut} if most < 4 else {0}
    assert joined([measured(window) for window in cut], tokens, most) == [
        None if token in lost else float(token) for token in text
    ]


def test_a_window_begins_with_the_end_of_the_one_before() -> None:
    first, second = windows(list(range(300)), 10_000)

    assert (first, second) == (list(range(256)), list(range(256 - CONTEXT_TOKENS, 300)))
