"""What every error looks like: OpenAI's shape."""

from pydantic import Field

from api.schemas.fields import Answer


class Problem(Answer):
    """One error. `param` is the dotted path of the field at fault. The rest is there only where it is told of."""

    message: str
    type: str
    param: str | None
    code: str
    reason: str = Field("", description="With 429: which bound was met.")
    queue: str = Field("", description="queue_full: the job's own queue.")
    depth: int = Field(0, description="queue_full: jobs that wait in it.")
    cap: int = Field(0, description="queue_full: the bound, in jobs; in tokens for the reasons tokens and wait.")
    expected_wait_s: float | None = Field(None, description="queue_full: of a job at its end; null: nobody can tell.")


class ProblemBody(Answer):
    """An answer that is an error."""

    error: Problem
