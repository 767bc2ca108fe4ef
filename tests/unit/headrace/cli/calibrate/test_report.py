"""The rules as text that `headrace.toml` takes."""

import io
import tomllib
from decimal import Decimal

from rich.console import Console

from headrace.cli.calibrate.report import as_json, cells_table, rules_toml
from headrace.config.rules import RuleSettings
from headrace.policies.routing.calibration import Cell, Part


def part(task: str | None, above: int, upto: int | None, *pools: str, is_proven: bool = True) -> Part:
    cells = [
        Cell(task, above, upto, pool, 120, wrong, 0.04, Decimal("0.001") * (wrong + 1))
        for wrong, pool in enumerate(("fast", "chat"))
    ]
    return Part(tuple(cells), pools, is_proven)


PARTS = [
    part("classify", 0, 400, "fast", "chat"),
    part("classify", 400, None, "chat", is_proven=False),
    part('say "hi"\\\n', 0, None, "fast"),
    part(None, 0, None, "chat"),
]
LONGEST = {"classify": 900, 'say "hi"\\\n': 50, None: 77}


def test_the_rules_are_what_the_settings_take() -> None:
    text = rules_toml(PARTS, LONGEST, 0.95)
    read = {name: RuleSettings(**rule) for name, rule in tomllib.loads(text)["rules"].items()}

    assert list(read) == ["classify", "classify-2", "say-hi", "others"]
    assert [(rule.tasks, rule.max_prompt_chars, rule.pools) for rule in read.values()] == [
        ({"classify"}, 400, ("fast", "chat")),
        ({"classify"}, None, ("chat",)),
        ({'say "hi"\\\n'}, 50, ("fast",)),
        (frozenset(), 77, ("chat",)),
    ]


def test_each_rule_says_what_it_rests_on() -> None:
    text = rules_toml(PARTS, LONGEST, 0.95)
    assert "# fast: 0 of 120 wrong, with 95% confidence at most 4.0%.\n[rules.classify]" in text
    assert "# chat: 1 of 120 wrong, with 95% confidence at most 4.0%. Unproven: the best of the pools.\n" in text
    assert "# It also matches jobs of tasks that no rule names.\n[rules.others]" in text


def test_the_table_has_every_pool_of_every_part() -> None:
    console = Console(width=100, file=io.StringIO())
    console.print(cells_table(PARTS[:2]))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    assert [line.split() for line in lines[1:]] == [
        ["classify", "<=", "400", "fast", "120", "0", "0.0%", "4.0%", "1.0000", "yes"],
        ["classify", "<=", "400", "chat", "120", "1", "0.8%", "4.0%", "2.0000", "yes"],
        ["classify", ">", "400", "fast", "120", "0", "0.0%", "4.0%", "1.0000"],
        ["classify", ">", "400", "chat", "120", "1", "0.8%", "4.0%", "2.0000", "unproven"],
    ]


def test_a_program_gets_the_same() -> None:
    told = as_json(PARTS, "text")
    assert [rule["pools"] for rule in told["rules"]] == [("fast", "chat"), ("chat",), ("fast",), ("chat",)]
    assert told["rules"][0]["cells"][1] == {
        "pool": "chat",
        "labels": 120,
        "wrong": 1,
        "error": 1 / 120,
        "most_error": 0.04,
        "usd_per_job": "0.002",
    }
