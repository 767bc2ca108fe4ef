"""How many hosts a pool should have, and why. Pure: no clock, no I/O, no library but pydantic.

`decisions.decide` is the entry. `docs/scaling.md` describes each policy and names the source of each rule.
"""
