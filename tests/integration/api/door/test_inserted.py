"""A job that was just accepted is known without a read, and is what a read would find."""

from dataclasses import replace
from typing import Any

import pytest

from api.routes.formats import FORMATS
from api.schemas.body import validated
from headrace.domain.apps import App
from tests.web import Web

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
TOOL = {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}, "strict": None}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "least": ("/v1/responses", {"input": "Hi"}),
    "most": (
        "/v1/responses",
        {
            "input": "Hi",
            "background": True,
            "stream": True,
            "instructions": "Be brief.",
            "metadata": {"order": "17"},
            "max_output_tokens": 16,
            "reasoning": {"effort": "low"},
            "safety_identifier": "Ada",
            "service_tier": "flex",
            "tools": [{"type": "function", **TOOL}],
            "job": {"max_wait": 60.5, "deadline": "2100-01-01T00:00:00Z", "overflow": "never"},
        },
    ),
    "several": ("/v1/chat/completions", {"messages": TURNS, "n": 3, "stream": True, "user": "Ada"}),
    "text": ("/v1/completions", {"prompt": "The sky is"}),
}


@pytest.mark.parametrize(("path", "body"), BODIES.values(), ids=BODIES)
def test_the_job_of_an_accept_is_the_row_that_was_inserted(web: Web, app: App, path: str, body: dict[str, Any]) -> None:
    accepted = web.deps.submitter.submit(validated(FORMATS[path].schema, body).to_draft(), app)
    assert accepted.fresh is not None
    fresh, row = accepted.fresh(), web.deps.reader.read(app.id, accepted.job_id)
    assert abs((fresh.created_at - row.created_at).total_seconds()) < 0.001
    assert replace(fresh, created_at=row.created_at) == row
