"""The outcome of a calibration: a table for people, and rules for `headrace.toml`."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from headrace.cli.output import table
from headrace.policies.routing.calibration import Cell, Part


def cells_table(parts: Iterable[Part]) -> Table:
    """Every pool on every part; those of the rules are marked."""
    rows = table("task", "prompts", "pool")
    for heading in ("labels", "wrong", "error", "at most", "USD/1000", "rule"):
        rows.add_column(heading, justify="right", no_wrap=True)
    for part in parts:
        for cell in part.cells:
            rows.add_row(
                escape(cell.task or "-"),
                _lengths(cell),
                escape(cell.pool),
                f"{cell.labels}",
                f"{cell.wrong}",
                f"{cell.error:.1%}",
                f"{cell.most_error:.1%}",
                f"{cell.usd * 1000:.4f}",
                _mark(part, cell),
            )
    return rows


def _mark(part: Part, cell: Cell) -> str:
    if cell.pool not in part.chosen:
        return ""
    return "yes" if part.is_proven else "unproven"


def _lengths(cell: Cell) -> str:
    if cell.upto is None:
        return f"> {cell.above}" if cell.above else "all"
    return f"{cell.above + 1}-{cell.upto}" if cell.above else f"<= {cell.upto}"


def rules_toml(parts: Sequence[Part], longest: dict[str | None, int], confidence: float) -> str:
    """The rules as they stand in `headrace.toml`, each with what it rests on.

    Args: longest: of each task, the characters of its longest labelled prompt. Above it nothing is known.
    """
    names, blocks = set[str](), []
    for part in parts:
        cell, bound = part.best, part.best.upto
        if bound is None and part.is_proven:
            bound = longest[cell.task]
        name = _name(cell.task, names)
        why = f"{cell.wrong} of {cell.labels} wrong"
        sure = f"with {confidence:.0%} confidence at most {cell.most_error:.1%}"
        lines = [
            f"# {cell.pool}: {why}, {sure}." + ("" if part.is_proven else " Unproven: the best of the pools."),
            *(["# It also matches jobs of tasks that no rule names."] if cell.task is None else []),
            f"[rules.{name}]",
            *([f"tasks = [{_string(cell.task)}]"] if cell.task is not None else []),
            *([f"max_prompt_chars = {bound}"] if bound is not None else []),
            f"pools = [{', '.join(map(_string, part.chosen))}]",
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _name(task: str | None, taken: set[str]) -> str:
    """A name that TOML takes without quotes, and no other rule has."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", task or "").strip("-") or ("others" if task is None else "task")
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    taken.add(name)
    return name


def _string(text: str) -> str:
    """A basic string of TOML."""
    escaped = re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", re.sub(r'(["\\])', r"\\\1", text))
    return f'"{escaped}"'


def as_json(parts: Iterable[Part], toml: str) -> dict[str, Any]:
    """The same for a program."""
    return {
        "rules": [
            {
                "task": part.best.task,
                "above_chars": part.best.above,
                "upto_chars": part.best.upto,
                "pools": part.chosen,
                "is_proven": part.is_proven,
                "cells": [_cell(cell) for cell in part.cells],
            }
            for part in parts
        ],
        "toml": toml,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "pool": cell.pool,
        "labels": cell.labels,
        "wrong": cell.wrong,
        "error": cell.error,
        "most_error": cell.most_error,
        "usd_per_job": f"{cell.usd:f}",
    }
