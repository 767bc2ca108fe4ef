"""What is believed of an Authorization header, and for how long."""

from typing import Any, cast

import pytest

from api.auth import Authenticator
from headrace.errors import Unauthenticated
from headrace.store import Store
from headrace.store.apps import App


class Asked:
    """Stands for `apps.authenticate`."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.keys: list[str] = []

    def __call__(self, _db: Any, key: str, _pepper: str) -> App:
        self.keys.append(key)
        if key != "hr-good":
            raise Unauthenticated
        return self.app


@pytest.fixture
def asked(app: App, monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(app)
    monkeypatch.setattr("headrace.store.apps.authenticate", asked)
    return asked


class AnyStore:
    """A Store whose transactions do nothing."""

    def begin(self) -> "AnyStore":
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def authenticator(ttl_s: float = 60) -> Authenticator:
    return Authenticator(cast(Store, AnyStore()), "pepper", ttl_s)


def test_a_good_key_is_asked_for_once(asked: Asked, app: App) -> None:
    known = authenticator()
    assert [known.authenticate(header) for header in ("Bearer hr-good", "bearer  hr-good")] == [app, app]
    assert asked.keys == ["hr-good"]


def test_a_good_key_is_asked_for_again_after_a_while(asked: Asked) -> None:
    known = authenticator(ttl_s=-1)
    known.authenticate("Bearer hr-good")
    known.authenticate("Bearer hr-good")
    assert len(asked.keys) == 2


def test_a_bad_key_is_never_remembered(asked: Asked) -> None:
    known = authenticator()
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            known.authenticate("Bearer hr-bad")
    assert len(asked.keys) == 2


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic hr-good", "hr-good", "Bearer " + "x" * 201, "Bearer ü"]
)
def test_what_cannot_be_a_key_costs_no_query(asked: Asked, header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        authenticator().authenticate(header)
    assert asked.keys == []
