import pytest

from headrace.config import Settings
from headrace.errors import ConfigError


@pytest.mark.parametrize(("given", "days"), [("", 30), ("7", 7), ("forever", None)])
def test_texts_are_kept_for_ever_only_where_it_is_said(
    given: str, days: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_KEEP_TEXTS_DAYS", given)
    assert Settings.load().keep_texts_days == days


def test_a_wrong_time_to_keep_texts_is_named_with_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KEEP_TEXTS_DAYS", "for ever")
    with pytest.raises(
        ConfigError, match=r"keep_texts_days \(HEADRACE_KEEP_TEXTS_DAYS\): .*'forever'.* Got 'for ever'"
    ):
        Settings.load()


def test_texts_that_are_kept_for_ever_exclude_detached_months(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KEEP_JOBS_MONTHS", "3")
    assert (Settings.load().keep_texts_days, Settings.load().keep_jobs_months) == (30, 3)
    monkeypatch.setenv("HEADRACE_KEEP_TEXTS_DAYS", "forever")
    with pytest.raises(ConfigError, match=r"keep_texts_days .* keep_jobs_months .* Set keep_texts_days to") as raised:
        Settings.load()
    assert raised.value.param == "keep_jobs_months"
