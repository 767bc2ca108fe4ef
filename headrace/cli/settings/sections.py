"""Reads every setting's description, type and default from the classes of `headrace.config`. Pure."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headrace.config import Settings
from headrace.config.variables import PREFIX

_ENTRY = re.compile(r"    (\w+): (.*)")


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that can be set.

    Attributes:
        name: its name within its section.
        variable: the environment variable that sets it.
        field: its type and bounds.
        defaults: {name of the table: default}. The name is empty if only one table exists. Without an entry, the
            setting is required.
        description: its entry in the docstring.
    """

    name: str
    variable: str
    field: FieldInfo
    defaults: Mapping[str, Any]
    description: str


@dataclass(frozen=True, slots=True)
class SettingsTable:
    """A table of `headrace.toml`.

    Attributes:
        header: the table's line in the file, such as `[lanes.NAME]`; empty for the top of the file.
    """

    header: str
    about: str
    settings: tuple[Setting, ...]


def sections(settings: type[BaseModel] = Settings) -> Iterator[SettingsTable]:
    """Each section, in the order of the fields. Raises: LookupError: a setting has no description."""
    return _walk(settings, (), {"": settings.model_construct()}, "")


def _walk(
    model: type[BaseModel], path: tuple[str, ...], tables: Mapping[str, BaseModel], about: str
) -> Iterator[SettingsTable]:
    """The section of this model, and those inside it. Args: tables: {name: a table that exists by default}."""
    summary, described = read_docstring(model)
    inner = {name: found for name, field in model.model_fields.items() if (found := _section_of(field.annotation))}
    missing = model.model_fields.keys() - inner.keys() - described.keys()
    if missing:
        raise LookupError(f"{model.__name__} does not describe {', '.join(sorted(missing))} under 'Attributes:'.")
    values = [
        _setting(name, path, field, tables, described[name])
        for name, field in model.model_fields.items()
        if name not in inner
    ]
    yield SettingsTable(f"[{'.'.join(path)}]" if path else "", about or summary, tuple(values))
    for name, (section, is_many) in inner.items():
        here = (*path, name, "NAME") if is_many else (*path, name)
        yield from _walk(section, here, _tables_in(name, tables), described.get(name, ""))


def _tables_in(name: str, tables: Mapping[str, BaseModel]) -> Mapping[str, BaseModel]:
    """The tables that this field holds by default. If its own table is one of many, the first one's tables."""
    for table in tables.values():
        value = getattr(table, name)
        return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {"": value}
    return {}


def _setting(
    name: str, path: tuple[str, ...], field: FieldInfo, tables: Mapping[str, BaseModel], description: str
) -> Setting:
    alias = field.validation_alias if isinstance(field.validation_alias, str) else ""
    defaults = {key: getattr(table, name) for key, table in tables.items() if hasattr(table, name)}
    if not tables and not field.is_required():
        defaults = {"": field.get_default(call_default_factory=True)}
    return Setting(name, alias or PREFIX + "__".join((*path, name)).upper(), field, defaults, description)


def _section_of(annotation: Any) -> tuple[type[BaseModel], bool] | None:
    """The section that a field of this type holds, and True if it holds many; None for a plain value."""
    if get_origin(annotation) is dict:
        found = _section_of(get_args(annotation)[1])
        return (found[0], True) if found else None
    return (annotation, False) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def read_docstring(model: type[BaseModel]) -> tuple[str, Mapping[str, str]]:
    """The docstring's first paragraph, and {attribute: its text} from `Attributes:`, each joined into one line."""
    about, _, attributes = (inspect.getdoc(model) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for line in attributes.splitlines():
        if entry := _ENTRY.fullmatch(line):
            found[entry[1]] = entry[2]
        elif found:
            name = next(reversed(found))
            found[name] = f"{found[name]} {line.strip()}".strip()
    return about.split("\n\n")[0].strip().replace("\n", " "), found
