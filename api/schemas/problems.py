"""What every error looks like: OpenAI's shape."""

from typing import Literal

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
    depth: int = Field(0, description="queue_full: what waits in it, in the unit of the cap.")
    cap: int = Field(0, description="queue_full: the bound.")
    unit: Literal["jobs", "tokens"] = Field(
        "jobs", description="queue_full: of depth and cap; tokens for the reasons tokens, token_share and wait."
    )
    expected_wait_s: float | None = Field(None, description="queue_full: of a job at its end; null: nobody can tell.")


class ProblemBody(Answer):
    """An answer that is an error."""

    error: Problem
