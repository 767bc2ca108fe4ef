""""""

import json

import hypothesis
import hypothesis.strategies as st
import pytest

from headrace.domain.answers import StoredLogprobs

ITEMS = st.lists(st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False) | st.lists(st.integers())))


@hypothesis.given(ITEMS, st.integers(0, 8), st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", ":")]))
def test_what_is_after_the_first_few_is_what_a_list_has_there(
    items: list[object], start: int, separators: tuple[str, str]
) -> None:
    stored = StoredLogprobs(json.dumps(items, separators=separators))
    assert json.loads(stored[start:].json) == items[start:]
    assert list(stored) == items
    assert (bool(stored), len(stored)) == (bool(items), len(items))


def test_those_after_the_first_few_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = StoredLogprobs("[{}, {}, this is no JSON]")
    assert stored[2:].json == "[this is no JSON]"
    assert stored[:].json == stored.json
