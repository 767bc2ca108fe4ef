"""The composition root: it connects to nothing, and its failpoint ends the process at the one armed point."""

import os

import pytest

from api.door.intake import FAILPOINT_INSERTED
from headrace.config import Settings
from headrace.errors import ConfigError
from headrace.startup import KILLED
from tests.web import Web


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses with which the process would have ended."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    return exits


@pytest.mark.parametrize(("armed", "ended"), [(FAILPOINT_INSERTED, [KILLED]), ("other", []), (None, [])])
def test_the_process_ends_at_the_armed_point_alone(
    settings: Settings, exits: list[int], armed: str | None, ended: list[int]
) -> None:
    web = Web.of(settings.model_copy(update={"failpoint": armed}))
    web.deps.submitter.intake._fail_at(FAILPOINT_INSERTED)
    assert exits == ended


def test_a_process_without_servers_lives_and_says_so(settings: Settings) -> None:
    client = Web.of(settings).test_client()
    assert client.get("/healthz").get_json() == {"status": "ok"}
    assert client.get("/openapi.json").status_code == 200
    assert client.get("/").headers["Location"] == "/docs/"


def test_what_needs_no_key_is_made_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it is made for each call")

    client = Web.of(settings).test_client()
    paths = ("/openapi.json", "/version", "/docs/", "/docs/swagger-ui-bundle.js")
    first = [client.get(path).data for path in paths]
    for maker in ("health.release_of", "documentation.document", "documentation.resources.files"):
        monkeypatch.setattr(f"api.routes.{maker}", never)
    assert [client.get(path).data for path in paths] == first


@pytest.mark.parametrize("given", [{}, {"pepper": "development"}])
def test_the_pepper_that_everyone_knows_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="HEADRACE_PEPPER is not set") as refused:
        Web.of(Settings.load(**given))
    assert refused.value.param == "pepper"
