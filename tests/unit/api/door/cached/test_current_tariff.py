"""The tariff of a web process: read again after seconds, and kept during an outage."""

from dataclasses import replace

import pytest

from api.door.cached import current_tariff
from api.door.cached.current_tariff import CurrentTariff
from headrace.config import Settings
from headrace.errors import StoreUnavailable
from headrace.policies.pricing import Tariff


def test_it_is_read_again_and_the_last_one_counts_during_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_tariff, "TARIFF_TTL_S", -1.0)  # each call reads
    settings_alone = Tariff.of(Settings())
    new = replace(settings_alone, api_default="gpt-9")
    answers: list[Tariff | None] = [None, new, None]

    def read() -> Tariff:
        answer = answers.pop(0)
        if answer is None:
            raise StoreUnavailable("down")
        return answer

    tariff = CurrentTariff(read, settings_alone)

    assert [tariff() for _ in range(3)] == [settings_alone, new, new]
