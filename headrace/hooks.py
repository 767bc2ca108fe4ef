"""What a plugin declares of itself.

A plugin is a folder under `plugins/`, which only the line in `plugins/__init__.py` names. The core reads what plugins
declare through `headrace.installed`, and imports none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PluginCommand:
    """A command of the terminal.

    Attributes:
        place: its module and its name there, `module:name`. The module is imported when the command is called.
        short_help: what `headrace --help` shows of it.
    """

    place: str
    short_help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """An optional feature, as the `PLUGIN` of its package.

    Attributes:
        name: of its folder.
        needs: the plugins without which it cannot be.
        settings: the place of its section of `headrace.toml`, which has its name: `module:class`. See `Settings.of`.
        variables: what `headrace up` adds to the environment of all processes, given its `Settings`.
        commands: by name; a name of two words belongs to a group of the core's: `costs reconcile`.
        actions: what operators do with it, as the audit log has it: the kind of the subject, and a verb.
        views: the analysts' views of its folder `views`; each reads only tables and what stands before it. Its tables
            are in `tables.py`, and what makes them, in numbered files, in the folder `sql`.
    """

    name: str
    needs: tuple[str, ...] = ()
    settings: str | None = None
    variables: Callable[[Any], Mapping[str, str]] = lambda _: {}
    commands: Mapping[str, PluginCommand] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
