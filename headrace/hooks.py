"""What a plugin declares of itself.

A plugin is a folder under `plugins/`, which only the line in `plugins/__init__.py` names. The core reads what plugins
declare through `headrace.installed`, and imports none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.setting_types import Section


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
        settings: its section of `headrace.toml`, which has its name; see `Settings.of`.
        commands: by name; a name of two words belongs to a group of the core's: `costs reconcile`.
        actions: what operators do with it, as the audit log has it: the kind of the subject, and a verb.
        views: the analysts' views of its folder `views`; each reads only tables and what stands before it. Its tables
            are in `tables.py`, and what makes them, in numbered files, in the folder `sql`.
    """

    name: str
    needs: tuple[str, ...] = ()
    settings: type[Section] | None = None
    commands: Mapping[str, PluginCommand] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
