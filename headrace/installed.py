"""The plugins of this installation, in the order of `plugins/__init__.py`."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from headrace.errors import ConfigError
from headrace.hooks import Plugin


@cache
def plugins() -> tuple[Plugin, ...]:
    """The plugins, each after those that it needs.

    Raises: ConfigError: the list names a folder that is not there, or leaves out what another plugin needs.
    """
    found = dict[str, Plugin]()
    for name in import_module("plugins").NAMES:
        if find_spec(f"plugins.{name}") is None:
            raise ConfigError(f"plugins/__init__.py lists '{name}', and there is no plugins/{name}. Delete that line.")
        plugin: Plugin = import_module(f"plugins.{name}").PLUGIN
        if missing := [each for each in plugin.needs if each not in found]:
            needed = f"plugins/__init__.py lists '{name}', which needs '{missing[0]}' above it."
            raise ConfigError(f"{needed} Add that line, or delete the one of '{name}'.")
        found[name] = plugin
    return tuple(found.values())


def place(named: str) -> Any:
    """What a plugin names as `module:name`. Imports the module."""
    module, _, name = named.partition(":")
    return getattr(import_module(module), name)


def read_note(text: str) -> tuple[str, str]:
    """A plugin and what it has noted of jobs, of `PLUGIN=TEXT`. Raises: ValueError: no such plugin, or no text."""
    name, sign, noted = text.partition("=")
    if not (sign and noted) or name not in (plugin.name for plugin in plugins()):
        known = ", ".join(plugin.name for plugin in plugins()) or "none"
        raise ValueError(f"'{text[:80]}' is not PLUGIN=TEXT; the plugins: {known}.")
    return name, noted


def parts(process: str) -> list[ModuleType]:
    """What plugins bring to a process. Args: process: the name of its file in a plugin's folder, such as `control`."""
    places = (f"plugins.{plugin.name}.{process}" for plugin in plugins())
    return [import_module(place) for place in places if find_spec(place) is not None]
