"""The texts of the reference: what each call does beyond its name, and when each webhook is sent."""

from collections.abc import Mapping

ABOUT = """\
Submit a prompt, get its place in a queue at once and its answer when it is done.

`/v1/jobs` is Headrace's own API; `/v1/responses`, `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`,
`/v1/files`, `/v1/batches` and `/v1/models` are OpenAI's, for its unchanged SDK: its base URL is this page's address
with `/v1` in place of `/docs`. All see the same jobs. Press **Authorize** and paste an API key
(`headrace keys create APP` makes one) to try a call from here.
"""

_ERASE = (
    "Prompt and answer are erased, and the job is 404 from then on. Its cost stays. A job that has not ended is 409."
)
_CANCEL = (
    "A waiting job ends at once. A running one has ended in this reply if its worker stops it within 2 seconds. "
    "Safe to repeat; a job that has ended stays as it is."
)
_IS_ALIVE = "200 as long as the process answers at all. Needs no key."

OPERATIONS: Mapping[str, str] = {
    "POST /v1/jobs": "A 202 is a promise: the job is stored, and ends in exactly one of `succeeded`, `failed`, "
    "`cancelled` and `expired`. Read it by its id, or name a `webhook`. A full queue is a 429 at once. With an "
    "`Idempotency-Key` the same request sent again makes no second job.",
    "GET /v1/jobs": "A page, without reasoning, log probabilities and embeddings. `after` is the last id of the page "
    "before.",
    "GET /v1/jobs/{id}": "At once, or with `wait` (seconds, 590 at most) once the job has ended. If the wait ends "
    "first, the job comes as it stands: ask again.",
    "DELETE /v1/jobs/{id}": _ERASE,
    "POST /v1/jobs/{id}/cancel": _CANCEL,
    "GET /v1/queues": "A queue is a lane of a pool. Each has its load and its caps in jobs and in tokens, how fast it "
    "drains, the wait to expect, and the workers that serve it.",
    "GET /v1/usage": "Your app's own requests by the day on which they ended, and what it was charged. Group by `day`, "
    "`model`, `lane` and `end_user`. 92 days at most.",
    "POST /v1/responses": "With `background` the reply comes at once, and the job goes on by itself. Without, the call "
    "is held until the job has ended, 590 seconds at most; with `stream` the text comes as events. What OpenAI has no "
    "field for goes into `job`: the lane, waits, a webhook.",
    "GET /v1/responses/{id}": "At once; with `wait` once it has ended; with `stream` its events from any number on, "
    "until 10 minutes after its end.",
    "DELETE /v1/responses/{id}": _ERASE,
    "POST /v1/responses/{id}/cancel": f"{_CANCEL} Only of a response with `background`.",
    "GET /v1/responses/{id}/input_items": "The turns of the input, earlier responses' included, the newest first.",
    "POST /v1/chat/completions": "The call is held until the answer is there, 590 seconds at most; with `stream` it "
    "comes in chunks. A job that does not start within 30 seconds expires with 503 and costs nothing.",
    "POST /v1/completions": "Continues a text or token ids, without the model's chat template. At most 16 tokens, if "
    "`max_tokens` does not say otherwise.",
    "POST /v1/embeddings": "One vector for each input, 2,048 inputs at most, all in one job. Needs a pool that serves "
    "embeddings.",
    "GET /v1/models": "Every model that a pool serves, with its adapters and other names.",
    "GET /v1/models/{id}": "By its name or one of its other names.",
    "POST /tokenize": "By the model's own tokenizer and chat template, as vLLM's server does. Makes no job.",
    "POST /detokenize": "By the model's own tokenizer, as vLLM's server does. Makes no job.",
    "GET /healthz": _IS_ALIVE,
    "GET /health": _IS_ALIVE,
    "GET /ping": _IS_ALIVE,
    "POST /ping": _IS_ALIVE,
    "GET /version": "The release of Headrace. Needs no key.",
    "GET /readyz": "503 with `failures` while a part does not answer that every call needs. `warnings` do not make it "
    "503: such as a pool that no worker serves. Needs no key.",
}

WEBHOOKS: Mapping[str, str] = {
    "response.completed": "The job has succeeded.",
    "response.incomplete": "The job has succeeded, and its answer was cut at `max_tokens`.",
    "response.failed": "The job has failed, or expired before it could start; its `error` says why.",
    "response.cancelled": "The job was cancelled.",
}
