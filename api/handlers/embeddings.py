"""`/v1/embeddings`: a job whose caller waits for the vectors of its inputs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from api.call import Call, Reply, Wait
from api.deps import WebDeps
from api.door.accepted import Accepted
from api.handlers.operation import QUESTION, SUBMIT, Operation
from api.handlers.submitting import checked_body, headers_of, reply_of, wait_for
from api.reading.job_error import job_error
from api.schemas.embeddings import EmbeddingList, EmbeddingRequest, EncodingFormat
from headrace.domain.jobs import Job
from headrace.domain.states import JobState


def create(web: WebDeps, call: Call) -> Reply | Wait:
    """200 and the vectors, once the job has succeeded."""
    asked = checked_body(EmbeddingRequest, web, call)
    return wait_for(web, call, asked.to_draft(), partial(_reply, asked.encoding_format or "float"))


def _reply(encoding: EncodingFormat, accepted: Accepted, job: Job) -> Reply:
    if job.state is not JobState.SUCCEEDED:
        raise job_error(job)
    return reply_of(EmbeddingList.of(job, encoding, accepted), headers=headers_of(accepted, job))


EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "one": {"input": QUESTION},
    "many": {"input": [QUESTION, "What colour is the sky?"], "encoding_format": "base64", "job": {"lane": "low"}},
}
OPERATIONS = (
    Operation(
        *("post", "/v1/embeddings", create, "OpenAI", "Embed texts, and wait for their vectors", EmbeddingList),
        body=EmbeddingRequest,
        examples=EXAMPLES,
        refusals=(*SUBMIT, 502, 504),
        prefers_wait=True,
    ),
)
