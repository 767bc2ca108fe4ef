"""What every error looks like: OpenAI's shape."""

from api.schemas.fields import Answer


class Problem(Answer):
    """One error. `param` is the dotted path of the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class ProblemBody(Answer):
    """An answer that is an error."""

    error: Problem
