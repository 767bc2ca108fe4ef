"""How many hosts a pool should have, and why. Pure: no clock, no I/O, no library but pydantic.

`docs/scaling.md` describes each policy and names the source of each rule.
"""

from headrace.policies.scaling.dispatch import VERSION, decide
from headrace.policies.scaling.forecast.accuracy import error_profiles
from headrace.policies.scaling.forecast.season import DayProfiles

__all__ = ["VERSION", "DayProfiles", "decide", "error_profiles"]
