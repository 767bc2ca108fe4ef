"""`/v1/embeddings`: a job whose caller waits for the vectors of its inputs."""

from flask import Blueprint, Response

from api.deps import answer, caller
from api.errors.job_error import job_error
from api.routes.submission import body, headers_of, waited_for
from api.schemas.body import validated
from api.schemas.embeddings import EmbeddingList, EmbeddingRequest
from headrace.domain.states import JobState

blueprint = Blueprint("embeddings", __name__, url_prefix="/v1/embeddings")


@blueprint.post("")
def create() -> Response:
    """200 and the vectors, once the job has succeeded."""
    app = caller(submits=True)
    asked = validated(EmbeddingRequest, body(app))
    drafts, encoding = [asked.to_draft()], asked.encoding_format or "float"
    del asked
    accepted, job = waited_for(drafts, app)
    if job.state is not JobState.SUCCEEDED:
        raise job_error(job)
    return answer(EmbeddingList.of(job, encoding, accepted), headers=headers_of(accepted, job))
