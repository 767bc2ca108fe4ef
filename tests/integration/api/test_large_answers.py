"""Log probabilities, which make an answer large: stored as they are sent, and sent as they are stored."""

import json
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.ids import parse_id
from headrace.store import Store
from headrace.tables import job_texts
from tests.web import ApiClient

#: Whoever read this, and wrote it again, would write it otherwise.
STORED = '[ {"token" :"Because","logprob":-5e-1,  "bytes":[66],"top_logprobs":[]}, {"token":"\\u00e9"} ]'
PATHS = ("/v1/jobs/job_{}", "/v1/responses/resp_{}", "/v1/responses/resp_{}?stream=true")


@pytest.fixture
def ended(client: ApiClient, finish: Any) -> UUID:
    """A job that has ended, with log probabilities."""
    asked = {"input": "Why is the sky blue?", "background": True, "stream": True, "top_logprobs": 2}
    with client.post("/v1/responses", json={**asked, "include": ["message.output_text.logprobs"]}) as stream:
        job_id = parse_id(stream.headers["x-job-id"])
    finish(job_id)
    return job_id


def store_them(store: Store, job_id: UUID, **columns: Any) -> None:
    with store.begin() as db:
        db.execute(sa.update(job_texts).where(job_texts.c.job_id == job_id).values(**columns))


@pytest.mark.parametrize("path", PATHS)
def test_a_large_answer_is_sent_as_it_is_stored_whatever_is_in_it(
    client: ApiClient, store: Store, ended: UUID, path: str
) -> None:
    store_them(store, ended, logprobs_json=sa.cast(STORED, sa.Text).cast(job_texts.c.logprobs_json.type))
    assert f'"logprobs":{STORED}' in client.get(path.format(ended.hex)).get_data(as_text=True)


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_that_an_older_worker_stored_is_sent_alike(
    client: ApiClient, store: Store, ended: UUID, path: str
) -> None:
    with store.begin() as db:
        new = db.scalar(sa.select(job_texts.c.logprobs_json).where(job_texts.c.job_id == ended))
    assert new
    before = client.get(path.format(ended.hex)).get_data(as_text=True)
    store_them(store, ended, logprobs=new, logprobs_json=None)

    after = client.get(path.format(ended.hex)).get_data(as_text=True)

    if path.endswith("stream=true"):
        before, after = (each.split("data: ")[-1] for each in (before, after))
    assert json.loads(after) == json.loads(before)
    assert json.dumps(new[0]["token"]) in after
