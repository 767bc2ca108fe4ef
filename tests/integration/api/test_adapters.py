"""A request names an adapter as it names a model."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import Settings
from headrace.store import Store
from headrace.tables import jobs
from tests.web import ApiClient, Web

ADAPTER = "team/sql"


@pytest.fixture
def client(
    settings: Settings, build_web: Callable[..., Web], client_of: Callable[..., ApiClient], key: str
) -> ApiClient:
    pool = settings.served_pool.model_copy(update={"adapters": {ADAPTER: "adapters/sql"}})
    return client_of(key, build_web(pools={settings.pool: pool}))


def test_an_adapter_is_listed_behind_its_model(client: ApiClient, settings: Settings) -> None:
    listed = client.get("/v1/models").get_json()["data"]
    assert [model["id"] for model in listed] == [settings.served_pool.model, ADAPTER]
    assert client.get(f"/v1/models/{ADAPTER}").get_json()["id"] == ADAPTER


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/jobs", {"prompt": "How many?"}),
        ("/v1/responses", {"input": "How many?", "background": True}),
    ],
)
@pytest.mark.parametrize(("model", "adapter"), [(ADAPTER, ADAPTER), (None, None)])
def test_the_job_says_which_adapter_it_asked_for(
    client: ApiClient, store: Store, settings: Settings, path: str, body: dict[str, Any], model: str, adapter: str
) -> None:
    name = model or settings.served_pool.model
    answer = client.post(path, json={**body, "model": name})
    assert answer.status_code < 300, answer.get_json()
    with store.begin() as db:
        row = db.execute(sa.select(jobs.c.model_requested, jobs.c.adapter, jobs.c.pool)).one()
    assert tuple(row) == (name, adapter, settings.pool)


def test_what_is_neither_a_model_nor_an_adapter_is_unknown(client: ApiClient) -> None:
    answer = client.post("/v1/jobs", json={"prompt": "How many?", "model": "team/other"})
    assert answer.status_code == 404
    assert answer.get_json()["error"]["code"] == "model_not_found"
