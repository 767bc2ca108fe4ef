"""The document says what the app serves, and nothing else."""

import json
import re
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import jsonschema_rs
import pytest

from api.app import make_flask_app
from api.deps import WebDeps
from api.hooks import WebCore
from api.routes.documentation.descriptions import OPERATIONS
from api.routes.documentation.openapi import document as made_of
from api.routes.operations import described
from headrace.config import Settings
from headrace.domain.ids import new_id
from headrace.domain.states import TERMINAL
from headrace.http import SHAPES
from headrace.installed import parts
from headrace.policies.webhooks import (
    APP_EVENTS,
    event_of,
    job_data,
    new_secret,
    payload,
    signed_headers,
)
from tests.web import Web

#: For people, not for programs.
PAGES = {"/", "/openapi.json", "/docs", "/docs/<name>"}


@cache
def document() -> dict[str, Any]:
    nothing: Any = None
    core = WebCore(Settings.load(engine="simulator"), nothing, nothing, nothing)
    plugins = [module.make(core) for module in parts("web")]
    app = make_flask_app(cast(WebDeps, SimpleNamespace(plugins=plugins)))
    return made_of(described(app), [webhook for part in plugins for webhook in part.webhooks])


@pytest.fixture
def flask_app(settings: Settings) -> Web:
    return Web.of(settings)


def test_every_route_is_described(flask_app: Web) -> None:
    served = {
        (method.lower(), re.sub(r"<[^>]*>", "{id}", rule.rule))
        for rule in flask_app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in PAGES
    }
    told = {(method, path) for path, item in document()["paths"].items() for method in item}
    assert told == served


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(document())
    named = set(re.findall(r'"#/components/(\w+)/([\w-]+)"', text))
    assert {kind for kind, _ in named} == {"schemas", "headers"}
    for kind, name in named:
        assert name in document()["components"][kind]


def resolved(node: Any) -> Any:
    """A part of the document, with what it refers to in place of the reference."""
    while isinstance(node, dict) and "$ref" in node:
        _, *path = node["$ref"].split("/")
        node = document()
        for part in path:
            node = node[part]
    return node


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, made) for path, item in document()["paths"].items() for method, made in item.items()]


def test_every_error_looks_as_its_class_is_answered() -> None:
    shapes = {(shape.status, shape.type) for shape in SHAPES.values()}
    for method, path, made in operations():
        for status, answer in made["responses"].items():
            if int(status) < 400 or path == "/readyz":
                continue
            error = answer["content"]["application/json"]["example"]["error"]
            assert (int(status), error["type"]) in shapes, (method, path, status)
            assert {"x-request-id", "openai-processing-ms"} <= set(answer["headers"])


def test_every_status_that_an_error_can_have_is_described() -> None:
    statuses = {int(status) for *_, made in operations() for status in made["responses"]}
    assert {shape.status for shape in SHAPES.values()} <= statuses


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [made["operationId"] for *_, made in operations()]
    assert len(set(names)) == len(names)


def test_every_operation_is_described_in_words() -> None:
    texts = {f"{method.upper()} {path}": made["description"] for method, path, made in operations()}
    assert texts.items() >= OPERATIONS.items()
    for name, text in texts.items():
        assert text.endswith("."), name
        assert len(text) > 20, name


def test_every_webhook_that_the_code_sends_is_described_and_no_other() -> None:
    assert document()["webhooks"].keys() >= APP_EVENTS
    job_id, now = new_id(), datetime.now(UTC)
    sent = [
        (event_of(state, reason), job_data(job_id, state)) for state in TERMINAL for reason in ("stop", "length", None)
    ]
    assert {event for event, _ in sent} == APP_EVENTS
    for event, data in sent:
        made = document()["webhooks"][event]["post"]
        schema = made["requestBody"]["content"]["application/json"]["schema"]
        check = jsonschema_rs.validator_for({**schema, "components": document()["components"]})
        body = payload(new_id(), event, data, now)
        check.validate(json.loads(body))
        assert not check.is_valid({**json.loads(body), "data": {}})
        headers = signed_headers([new_secret()], new_id(), now, body)
        assert {"content-type", *(each["name"] for each in made["parameters"])} == headers.keys()


def test_a_query_has_no_null_for_there_is_none_in_a_url() -> None:
    for method, path, made in operations():
        for parameter in made["parameters"]:
            assert "null" not in json.dumps(resolved(parameter["schema"])), (method, path, parameter["name"])


def test_each_parameter_is_described() -> None:
    for method, path, made in operations():
        for parameter in made["parameters"]:
            assert parameter["description"], (method, path, parameter["name"])


@pytest.mark.parametrize(
    ("schema", "fields"),
    [
        ("AcceptedBody", {"queue", "position", "depth", "expected_wait_s", "start_by", "max_tokens", "max_wait"}),
        ("JobBody", {"finish_reason", "attempts", "wait_s", "run_s", "created_at", "start_by", "deadline"}),
        ("JobBody", {"started_at", "ended_at", "route", "engine"}),
        ("JobView", {"attempts", "wait_s", "run_s", "max_tokens", "max_wait"}),
        ("JobOptions", {"lane", "max_wait", "deadline", "webhook", "overflow", "max_cost_usd"}),
        ("QueueBody", {"depth", "backlog_tokens", "expected_wait_s", "workers", "running", "slots"}),
    ],
)
def test_what_its_name_does_not_say_of_a_field_is_described(schema: str, fields: set[str]) -> None:
    properties = document()["components"]["schemas"][schema]["properties"]
    assert fields <= {name for name, kind in properties.items() if kind.get("description")}


def test_what_a_body_may_hold_has_examples() -> None:
    bodies = [made["requestBody"]["content"] for *_, made in operations() if "requestBody" in made]
    with_json = [body["application/json"] for body in bodies if "application/json" in body]
    assert len(with_json) >= 7
    for content in with_json:
        fields = resolved(content["schema"])["properties"]
        assert content["examples"]
        for example in content["examples"].values():
            assert set(example["value"]) <= set(fields)


def test_an_upload_is_a_form_with_a_file() -> None:
    (made,) = [made for method, path, made in operations() if (method, path) == ("post", "/v1/files")]
    form = made["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["required"]) == {"purpose", "file"}
    assert form["properties"].keys() == {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"}


def test_what_makes_a_job_or_a_batch_takes_an_idempotency_key() -> None:
    taking = {
        path for _, path, made in operations() if "Idempotency-Key" in {each["name"] for each in made["parameters"]}
    }
    assert {"/v1/jobs", "/v1/responses", "/v1/batches", "/v1/batches/{id}/retry"} <= taking
    assert not taking & {"/v1/files", "/v1/batches/{id}/cancel", "/tokenize"}


def test_a_reply_that_is_not_json_says_its_media_type() -> None:
    kinds = {
        path: set(made["responses"]["200"]["content"])
        for method, path, made in operations()
        if method == "get" and path.startswith(("/v1/files/", "/v1/batches/"))
    }
    assert kinds["/v1/batches/{id}/results"] == {"application/jsonl"}
    assert kinds["/v1/files/{id}/content"] == {"application/octet-stream"}
    assert kinds["/v1/batches/{id}"] == {"application/json"}


def test_everything_under_v1_asks_for_a_key(flask_app: Web) -> None:
    client = flask_app.test_client()
    for path, item in document()["paths"].items():
        for method in item:
            if path.startswith("/v1"):
                response = client.open(path.replace("{id}", "job_" + "0" * 32), method=method.upper())
                assert response.status_code == 401, (method, path)


def test_the_page_loads_its_own_files_alone_under_a_strict_policy(flask_app: Web) -> None:
    client = flask_app.test_client()
    page = client.get("/docs/")
    links = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(links) == 5
    assert not re.search(r"<script>|<style|style=|onload", page.text), "the policy would forbid it"
    for link in ["/docs/", "/docs/no-such-file", *links]:
        assert link.startswith("/docs/")
        asset = client.get(link)
        assert asset.status_code == (404 if "no-such" in link else 200)
        policy = dict(each.split(maxsplit=1) for each in asset.headers["Content-Security-Policy"].split("; "))
        assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'none'")
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert asset.headers["X-Content-Type-Options"] == "nosniff"
    start = client.get("/docs/start.js").text
    assert "validatorUrl: null" in start
    assert "persistAuthorization: false" in start


def test_a_browser_that_has_a_file_is_sent_no_other(flask_app: Web) -> None:
    client = flask_app.test_client()
    for path in ("/docs/", "/docs/swagger-ui-bundle.js", "/openapi.json"):
        etag = client.get(path).headers["ETag"]
        again = client.get(path, headers={"If-None-Match": etag})
        assert (again.status_code, again.data) == (304, b"")
