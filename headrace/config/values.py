"""What the sections of the settings are made from: bounded numbers, and a table that takes no unknown name."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Days = Annotated[int, Field(gt=0, le=10_000)]
#: Seconds that end within a year. After many more, no moment can be written down.
WithinAYear = Annotated[float, Field(gt=0, le=366 * 86_400)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Refuses a name that it does not know, and a number that is infinite or none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
