"""`/v1/models`: the models that a request can name, in OpenAI's format."""

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
