"""How many hosts a pool should have, and why. Pure: no clock, no I/O, no library but pydantic.

`docs/scaling.md` describes each policy and names the source of each rule.
"""

from headrace.policies.scaling.dispatch import VERSION, decide
from headrace.policies.scaling.forecast import DayProfiles, error_profiles

__all__ = ["VERSION", "DayProfiles", "decide", "error_profiles"]
