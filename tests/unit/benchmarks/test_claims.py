"""The registry: how a claim is read, and what is said of a wrong one."""

import pytest

from benchmarks.bench.claims import Goal, read_claims
from headrace.errors import ConfigError

WHOLE = {"claim": '"Fast."', "run": '"fast.py --off x"', "goals": '["ratio >= 1.5"]', "measures": '["api"]'}


def registry(**changed: str) -> str:
    return "[fast]\n" + "\n".join(f"{key} = {value}" for key, value in (WHOLE | changed).items())


def test_a_claim_has_its_command_goals_and_paths() -> None:
    claim = read_claims(registry())["fast"]

    assert claim.command == "bin/headrace python benchmarks/fast.py --off x"
    assert (claim.goals, claim.measures) == ((Goal("ratio", ">=", 1.5),), ("api",))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"claim": "1"}, "fast.claim"),
        ({"goals": '["ratio about 1"]'}, "fast.goals: 'ratio about 1'"),
        ({"goals": "[1]"}, "fast.goals"),
        ({"measures": "[]"}, "fast.measures"),
        ({"run": '""'}, "fast.run"),
        ({"colour": '"red"'}, "fast.colour"),
        ({"claim": "'"}, "is not TOML"),
    ],
)
def test_a_wrong_claim_is_refused_with_its_key(changed: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_claims(registry(**changed))


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal("x", "<=", 1.5), 1.5, True),
        (Goal("x", "<=", 1.5), 1.51, False),
        (Goal("x", ">=", 1.5), 1.4, False),
        (Goal("x", "=", 0), 0, True),
        (Goal("x", "=", 0), 1, False),
        (Goal("x", "=", 0), "none", False),
    ],
)
def test_a_goal_is_met_by_a_number_that_keeps_to_it(goal: Goal, value: object, met: bool) -> None:
    assert goal.is_met({"x": value}) is met
    assert not goal.is_met({})
