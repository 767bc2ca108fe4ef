"""OpenAI's paths that are not served: each answer says so, and what to do instead.

The status is 404, because OpenAI's SDK raises it at once as NotFoundError. It would send a request three times on 501.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from flask import Blueprint, Response, request
from werkzeug.exceptions import MethodNotAllowed

from api.deps import caller
from api.errors.methods import REFUSING, allowed_methods
from headrace.errors import NotFound

blueprint = Blueprint(REFUSING, __name__, url_prefix="/v1")

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

ONE_BY_ONE = "Send each request to POST /v1/responses with background=true; job.lane 'batch' is for work that can wait."
HOOK = "Name a URL in job.webhook of each request."
READ_JOB = "Read the job at GET /v1/jobs/{id}; its id is in the header x-job-id."
TEXT_ONLY = "Text is answered and embedded here, and nothing else."
WHOLE = "Send the whole conversation as 'input' of POST /v1/responses."

#: The first part of a path under /v1, and what to do instead.
FAMILIES: Mapping[str, str] = {
    "assistants": WHOLE,
    "audio": TEXT_ONLY,
    "batches": ONE_BY_ONE,
    "containers": TEXT_ONLY,
    "conversations": WHOLE,
    "evals": TEXT_ONLY,
    "files": ONE_BY_ONE,
    "fine_tuning": TEXT_ONLY,
    "images": TEXT_ONLY,
    "moderations": TEXT_ONLY,
    "realtime": "Send stream=true to POST /v1/responses.",
    "threads": WHOLE,
    "uploads": ONE_BY_ONE,
    "vector_stores": TEXT_ONLY,
    "videos": TEXT_ONLY,
    "webhook_endpoints": HOOK,
    "webhook_event_types": HOOK,
}
#: Single calls of families that are served: (method, path), and what to do instead.
CALLS: Mapping[tuple[str, str], str] = {
    ("GET", "chat/completions"): "GET /v1/jobs lists your jobs.",
    ("GET", "chat/completions/<path:rest>"): READ_JOB,
    ("POST", "chat/completions/<path:rest>"): READ_JOB,
    ("DELETE", "chat/completions/<path:rest>"): "DELETE /v1/jobs/{id} erases the job; its id is in x-job-id.",
    ("GET", "embeddings"): "GET /v1/jobs lists your jobs.",
    ("POST", "responses/compact"): WHOLE,
    ("POST", "responses/input_tokens"): "The usage of each answer has them.",
    ("DELETE", "models/<path:rest>"): "The operator of this service sets up its models.",
}


def _refuse(remedy: str, rest: str = "") -> Response:
    caller()
    if request.method == "HEAD" and set(allowed_methods()) - {"OPTIONS"}:
        # Flask adds HEAD to a refused GET. The path is served: by other methods.
        raise MethodNotAllowed
    raise NotFound(f"This is not served here. {remedy}", code="not_supported")


def _serve(endpoint: str, methods: Sequence[str], remedy: str, *paths: str) -> None:
    refuse = partial(_refuse, remedy)
    for path in paths:
        blueprint.add_url_rule(f"/{path}", endpoint, refuse, methods=methods)


for number, (family, advice) in enumerate(FAMILIES.items()):
    _serve(f"family_{number}", METHODS, advice, family, f"{family}/<path:rest>")
for number, ((method, call), advice) in enumerate(CALLS.items()):
    _serve(f"call_{number}", [method], advice, call)
