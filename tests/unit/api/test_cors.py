"""A page may call the API where a setting names its origin, and nowhere else."""

import pytest

from headrace.config import Settings
from headrace.config.sections import CorsSettings
from tests.web import ApiClient, Web

PAGE = "https://app.example.com"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,x-stainless-lang",
}


def client_of(settings: Settings, *origins: str) -> ApiClient:
    return Web.of(settings.model_copy(update={"cors": CorsSettings(origins=origins)})).test_client()


@pytest.mark.parametrize(("origins", "allowed"), [((PAGE,), PAGE), (("*",), "*"), (("https://other", PAGE), PAGE)])
def test_a_named_page_may_ask_and_read(settings: Settings, origins: tuple[str, ...], allowed: str) -> None:
    client = client_of(settings, *origins)
    asked = client.options("/v1/chat/completions", headers=PREFLIGHT)
    assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (204, allowed)
    assert asked.headers["Access-Control-Allow-Headers"] == "authorization,x-stainless-lang"
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    # An error, too: without the header a page could not read why.
    refused = client.get("/v1/models", headers={"Origin": PAGE})
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, allowed)
    assert "x-job-id" in refused.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in refused.headers


@pytest.mark.parametrize("origins", [(), ("https://other.example.com",), ("http://app.example.com",)])
def test_any_other_page_may_not(settings: Settings, origins: tuple[str, ...]) -> None:
    asked = client_of(settings, *origins).options("/v1/chat/completions", headers=PREFLIGHT)
    assert not [name for name, _ in asked.headers if name.lower().startswith("access-control-")]
    assert asked.headers.get("Vary") == ("Origin" if origins else None)


@pytest.mark.parametrize("origin", ["app.example.com", "https://app.example.com/", "https://", "null"])
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        CorsSettings(origins=(origin,))
