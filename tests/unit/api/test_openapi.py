"""The document says what the app serves, and nothing else."""

import json
import re

import pytest
from flask import Flask

from api.app import create_app
from api.openapi import document
from headrace.config import Settings

#: For people, not for programs.
PAGES = {"/", "/openapi.json", "/docs/"}


@pytest.fixture
def flask_app(settings: Settings) -> Flask:
    return create_app(settings)


def test_every_route_is_described(flask_app: Flask) -> None:
    served = {
        (method.lower(), re.sub(r"<[^>]*>", "{id}", rule.rule))
        for rule in flask_app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in PAGES and not rule.rule.startswith("/docs/")
    }
    described = {(method, path) for path, item in document()["paths"].items() for method in item}
    assert described == served


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(document())
    named = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert named
    assert named <= set(document()["components"]["schemas"])


def test_everything_under_v1_asks_for_a_key(flask_app: Flask) -> None:
    client = flask_app.test_client()
    for path, item in document()["paths"].items():
        for method in item:
            if path.startswith("/v1"):
                response = client.open(path.replace("{id}", "job_" + "0" * 32), method=method.upper())
                assert response.status_code == 401, (method, path)


def test_the_pages_load_nothing_from_elsewhere(flask_app: Flask) -> None:
    client = flask_app.test_client()
    page = client.get("/docs/").get_data(as_text=True)
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    for link in links:
        assert link.startswith("/docs/")
        with client.get(link) as asset:
            assert asset.status_code == 200
    assert '"validatorUrl": null' in page
