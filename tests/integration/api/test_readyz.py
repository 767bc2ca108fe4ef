"""/readyz needs no key, so a flood of calls costs one check a second."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from headrace.broker.admission import Admission
from tests.web import Web

CALLERS, CALLS = 16, 4


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], Counter[str]]:
    """Counts the calls of a method from now on."""
    calls = Counter[str]()

    def count(owner: type, name: str) -> Counter[str]:
        real = getattr(owner, name)

        def call(self: object) -> object:
            calls[name] += 1
            return real(self)

        monkeypatch.setattr(owner, name, call)
        return calls

    return count


def test_a_flood_of_readyz_makes_one_check(
    counted: Callable[[type, str], Counter[str]], build_web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(Admission, "check_writable")
    monkeypatch.setattr("api.readiness.REPORT_TTL_S", 3600.0)
    web, another = build_web(), build_web()
    start = Barrier(CALLERS)

    def ask(_: int) -> set[int]:
        client = web.test_client()
        start.wait(30)
        return {client.get("/readyz").status_code for _ in range(CALLS)}

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set.union(*threads.map(ask, range(CALLERS))) == {200}

    assert calls["check_writable"] == 1
    assert another.test_client().get("/readyz").status_code == 200, "a process's second check"
    assert calls["check_writable"] == 2
