"""`/healthz`, `/readyz` and `/version`."""

from typing import Literal

from pydantic import Field

from api.schemas.fields import Answer


class Health(Answer):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Version(Answer):
    """The release of Headrace that answers."""

    version: str


class Readiness(Answer):
    """Whether the process can serve."""

    status: Literal["ready", "unavailable"]
    failures: dict[str, str] = Field(default_factory=dict, description="What fails, by part; empty when ready.")
    warnings: dict[str, str] = Field(
        default_factory=dict, description="What is shut on purpose, or too old, and what mends it."
    )
