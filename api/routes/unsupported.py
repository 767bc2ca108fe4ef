"""OpenAI's paths that are not served: each reply says so, and what to do instead.

The status is 404, because OpenAI's SDK raises it at once as NotFoundError. It would send a request three times on 501.
"""

from collections.abc import Mapping

HOOK = "Name a URL in job.webhook of each request."
READ_JOB = "Read the job at GET /v1/jobs/{id}; its id is in the header x-job-id."
TEXT_ONLY = "Headrace answers and embeds text alone: call another service for this."
WHOLE = "Send the whole conversation as 'input' of POST /v1/responses."

#: The first part of a path under /v1, and what to do instead.
FAMILIES: Mapping[str, str] = {
    "assistants": WHOLE,
    "audio": TEXT_ONLY,
    "containers": TEXT_ONLY,
    "conversations": WHOLE,
    "evals": TEXT_ONLY,
    "fine_tuning": TEXT_ONLY,
    "images": TEXT_ONLY,
    "moderations": TEXT_ONLY,
    "realtime": "Send stream=true to POST /v1/responses.",
    "threads": WHOLE,
    "uploads": "Send the whole file to POST /v1/files.",
    "vector_stores": TEXT_ONLY,
    "videos": TEXT_ONLY,
    "webhook_endpoints": HOOK,
    "webhook_event_types": HOOK,
}
#: Single calls of families that are served: (method, path), and what to do instead.
CALLS: Mapping[tuple[str, str], str] = {
    ("GET", "chat/completions"): "GET /v1/jobs lists your jobs.",
    ("GET", "chat/completions/{rest}"): READ_JOB,
    ("POST", "chat/completions/{rest}"): READ_JOB,
    ("DELETE", "chat/completions/{rest}"): "DELETE /v1/jobs/{id} erases the job; its id is in x-job-id.",
    ("GET", "embeddings"): "GET /v1/jobs lists your jobs.",
    ("POST", "responses/compact"): WHOLE,
    ("POST", "responses/input_tokens"): "The usage of each answer has them.",
    ("DELETE", "models/{rest}"): "The operator of this service sets up its models.",
}


def remedy(method: str, path: str) -> str | None:
    """Returns what to do instead of a call of OpenAI's that is not served; None for any other call."""
    if not path.startswith("/v1/"):
        return None
    name = path.removeprefix("/v1/").rstrip("/")
    return _call(method, name) or FAMILIES.get(name.partition("/")[0])


def _call(method: str, name: str) -> str | None:
    for (of_method, pattern), advice in CALLS.items():
        family, _, rest = pattern.partition("/{")
        if method == of_method and (name.startswith(f"{family}/") if rest else name == family):
            return advice
    return None
