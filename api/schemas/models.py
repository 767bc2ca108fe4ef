"""`/v1/models`: OpenAI's list of what can be asked for."""

from typing import Literal

from api.schemas.fields import Answer


class ModelBody(Answer):
    """One model. `created` says nothing here: a model is there since its pool is."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "headrace"


class ModelList(Answer):
    """Every model, the default one first."""

    object: Literal["list"] = "list"
    data: list[ModelBody]
