"""What sections of `headrace.toml` are made from: the core's, and those of plugins."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

#: The value of `DaysOrForever` that sets no end.
FOREVER = "forever"

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Days = Annotated[int, Field(gt=0, le=10_000)]
#: Seconds that end within a year. After many more, no moment can be written down.
WithinAYear = Annotated[float, Field(gt=0, le=366 * 86_400)]
Share = Annotated[float, Field(ge=0, le=1)]


def _days_or_forever(value: Any) -> Any:
    # Neither is True one day, after which all texts would be gone.
    if isinstance(value, bool) or (isinstance(value, str) and value != FOREVER and not value.isdecimal()):
        raise ValueError(f"it is neither a whole number of days nor '{FOREVER}'")
    return None if value == FOREVER else value


#: None: for ever.
DaysOrForever = Annotated[Days | None, BeforeValidator(_days_or_forever)]


class Section(BaseModel):
    """Refuses a name that it does not know, and a number that is infinite or none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
