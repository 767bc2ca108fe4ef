"""What a request may ask of compression, what it gets, and what it is told."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import Settings
from headrace.domain.ids import parse_id
from headrace.store import Store
from headrace.tables import job_texts
from tests.web import ApiClient, Web

TALK = [
    {"role": "user", "content": "Tell me   of mills."},
    {"role": "assistant", "content": "They grind."},
    {"role": "user", "content": "How?"},
]
PLAIN = {"method": "plain", "also": ["last_turn", "system"]}


@pytest.fixture
def stored(store: Store) -> Callable[[Any], Any]:
    """How a job's prompt is to be compressed, as Postgres has it."""

    def read(told: Any) -> Any:
        job_id = parse_id(told["id"])
        with store.begin() as db:
            return db.scalar(sa.select(job_texts.c.sampling["compression"]).where(job_texts.c.job_id == job_id))

    return read


def test_a_job_is_stored_with_its_compression_and_its_original(
    client: ApiClient, stored: Callable[[Any], Any], store: Store
) -> None:
    asked = {"compress": "plain", "compress_also": ["system", "last_turn"]}
    told = client.post("/v1/jobs", json={"messages": TALK, **asked}).get_json()

    assert stored(told) == PLAIN
    with store.begin() as db:
        assert db.scalar(sa.select(job_texts.c.messages)) == TALK


def test_openai_s_formats_ask_in_their_job_object(client: ApiClient, store: Store) -> None:
    asked = {"compress": "plain", "compress_also": ["system", "last_turn"]}

    response = client.post("/v1/responses", json={"input": TALK, "background": True, "job": asked})

    assert response.status_code == 200
    with store.begin() as db:
        assert db.scalar(sa.select(job_texts.c.sampling["compression"])) == PLAIN


def test_the_pool_s_own_setting_is_the_default(
    build_web: Callable[..., Web], client_of: Callable[..., ApiClient], key: str, settings: Settings, stored: Any
) -> None:
    pools = {name: pool.model_copy(update={"compress": "plain"}) for name, pool in settings.pools.items()}
    client = client_of(key, build_web(pools=pools))

    by_default = client.post("/v1/jobs", json={"messages": TALK}).get_json()
    without = client.post("/v1/jobs", json={"messages": TALK, "compress": "off"}).get_json()

    assert (stored(by_default), stored(without)) == ({"method": "plain", "also": []}, None)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"compress": "zip"}, "compress"),
        ({"compress_to": 0.5}, "compress_to"),
        ({"compress": "plain", "compress_to": 0.5}, "compress_to"),
        ({"compress": "surprise"}, "compress"),
        ({"compress": "plain", "compress_also": ["tools"]}, "compress_also.0"),
        ({"compress_also": ["system"]}, "compress_also"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_refused_by_name(
    client: ApiClient, asked: dict[str, Any], param: str
) -> None:
    response = client.post("/v1/jobs", json={"messages": TALK, **asked})

    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)
    response = client.post("/v1/chat/completions", json={"messages": TALK, "job": asked})
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, f"job.{param}")


def test_a_removed_method_is_refused_with_those_that_are_left(client: ApiClient) -> None:
    response = client.post("/v1/jobs", json={"messages": TALK, "compress": "surprise"})

    told = response.get_json()["error"]
    assert (response.status_code, told["param"]) == (400, "compress")
    assert "'off' or 'plain'" in told["message"]


def test_a_job_says_how_many_tokens_its_prompt_had(
    client: ApiClient, finish: Callable[..., None], store: Store
) -> None:
    job_id = client.post("/v1/jobs", json={"messages": TALK, "compress": "plain"}).get_json()["id"]
    finish(parse_id(job_id), "By stones.", "stop")
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET original_tokens = 99"))

    assert client.get(f"/v1/jobs/{job_id}").get_json()["usage"]["original_tokens"] == 99
    answer = client.get(f"/v1/responses/resp_{parse_id(job_id).hex}").get_json()
    assert answer["job"]["original_tokens"] == 99
