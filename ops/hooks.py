"""What a plugin brings to the operators' pages: its `pages.py` has a `PART`."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import Blueprint

from headrace.installed import parts


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesPart:
    """A plugin's part of the process `ops`.

    Attributes:
        blueprint: its pages.
        link: the endpoint and the label of its link in the navigation; None: no link.
        note_url: where what it noted of a job is shown; None: nowhere.
    """

    blueprint: Blueprint
    link: tuple[str, str] | None = None
    note_url: Callable[[str], str] | None = None


def of_plugins() -> dict[str, PagesPart]:
    """By the plugin's name, each one's part, in the order of the plugins."""
    return {module.__name__.split(".")[1]: module.PART for module in parts("pages")}
