"""`headrace settings`: every setting, and the page `docs/settings.md`, from the descriptions in `headrace.config`."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from pathlib import Path
from textwrap import fill
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le
from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo

from headrace.cli.output import json_option, out, print_json
from headrace.config import NO_PEPPER, PROJECT_ROOT, Settings
from headrace.config.variables import PREFIX

#: From the root of a checkout.
PAGE = "docs/settings.md"

_HEAD = """\
# Settings

`bin/headrace settings --page` makes this page from the descriptions in `headrace/config`; do not edit it.

Settings come from the environment and from one file, `headrace.toml` in the checkout; `HEADRACE_CONFIG` names another
file. The environment wins. The variable of a setting in a table is the line below the table's heading, and the
setting's name in capitals: `HEADRACE_LANES__HIGH__DEPTH_CAP=100` is `depth_cap` under `[lanes.high]`. `NAME` stands for
a lane, a pool or a model. A process does not start with an unknown name, in the file or as a `HEADRACE_*` variable; the
error gives the nearest known name. A variable gives a list or a table as JSON; an empty variable sets nothing.

A default holds where neither the environment nor the file sets the value; the checkout's `headrace.toml` sets some.

These variables are not in the file; the [Procfile](../Procfile) reads all but the first:

| variable | default | meaning |
|---|---|---|
| `HEADRACE_CONFIG` | `headrace.toml` in the checkout | the settings file |
| `HEADRACE_HOST`, `PORT` | `127.0.0.1`, `8000` | where `web` listens; `0.0.0.0` lets a proxy on another host in |
| `OPS_HOST`, `OPS_PORT` | `127.0.0.1`, `8600` | where `ops` listens |
| `FLOWER_HOST`, `FLOWER_PORT` | `127.0.0.1`, `5555` | where `flower` listens |
| `FLOWER_BASIC_AUTH` | none: `flower` does not start | `USER:PASSWORD` of Flower's page; `headrace up` makes one |
"""
_TOP = "## At the top of the file"

#: The unit of a setting, by the ending of its name.
_UNITS = {
    "usd_per_mtok": "USD per 1,000,000 tokens",
    "tokens_per_s": "tokens per second",
    "jobs_per_s": "jobs per second",
    "bytes": "bytes",
    "mib": "MiB",
    "days": "days",
    "usd": "USD",
    "tokens": "tokens",
    "s": "seconds",
}
_WORDS = {
    **{str: "text", Path: "path", SecretStr: "secret text", bool: "true or false", int: "whole number"},
    **{datetime: "date and time", time: "time of day"},
}
_BOUNDS = {Gt: "above {.gt:,}", Ge: "at least {.ge:,}", Le: "at most {.le:,}"}
#: An attribute of a docstring, and the first line of its text.
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
        header: the table's line in the file, such as `[lanes.NAME]`; `[[owned_hosts]]` for each table of a list, whose
            settings share one variable; empty for the top of the file.
    """

    header: str
    about: str
    settings: tuple[Setting, ...]


@click.command()
@click.option("--page", "writes", is_flag=True, help=f"Write it to {PAGE} in the checkout instead.")
@json_option
def settings(writes: bool, as_json: bool) -> None:
    """Print every setting: its variable, its values, its default and its meaning, as Markdown."""
    text = page(sections())
    if writes:
        (PROJECT_ROOT / PAGE).write_text(text, encoding="utf-8")
    if as_json:
        print_json(rows(sections()))
    elif writes:
        out.print(f"{PAGE} is made.")
    else:
        click.echo(text, nl=False)


def page(sections: Iterable[SettingsTable]) -> str:
    """The whole page: a list for each section."""
    return _HEAD + "".join(_section(section) for section in sections)


def _section(section: SettingsTable) -> str:
    title = _TOP
    if section.header.startswith("[["):
        title = f"## `{section.header}`\n\n`{section.settings[0].variable}`, as JSON\n\n{_sentence(section.about)}"
    elif section.header and section.settings:
        variable, name = section.settings[0].variable, section.settings[0].name
        title = f"## `{section.header}`\n\n`{variable.removesuffix(name.upper())}…`\n\n{_sentence(section.about)}"
    elif section.header:
        title = f"## `{section.header}`\n\n{_sentence(section.about)}"
    return f"\n{title}\n\n" + "".join(_item(setting, is_named=not section.header) for setting in section.settings)


def rows(sections: Iterable[SettingsTable]) -> list[dict[str, str]]:
    """The page's content for a program: a row for each setting."""
    return [
        {
            "section": section.header,
            "name": setting.name,
            "variable": setting.variable,
            "value": _value(setting),
            "default": _default(setting),
            "meaning": _sentence(setting.description),
        }
        for section in sections
        for setting in section.settings
    ]


def _item(setting: Setting, *, is_named: bool) -> str:
    """A setting's line. Args: is_named: with its variable, which other tables' headings show."""
    default = _default(setting)
    facts = f"*{_sentence(_value(setting))}." + (f" Default: {default}.*" if default != "none" else "*")
    variable = f", `{setting.variable}`" if is_named else ""
    text = f"- **`{setting.name}`**{variable}: {_sentence(setting.description)} {facts}"
    # No break at hyphens: a broken name cannot be searched for.
    return fill(text, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) + "\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _value(setting: Setting) -> str:
    """The kind of value, with its unit and bounds."""
    name, annotation = setting.name, setting.field.annotation
    unit = next((unit for end, unit in _UNITS.items() if name == end or name.endswith(f"_{end}")), None)
    bounds = _bounds((annotation, *setting.field.metadata))
    if {"at least 0", "at most 1"} == set(bounds):
        return "share from 0 to 1"
    if unit and get_origin(annotation) is tuple:
        unit = f"list of {unit}"
    return ", ".join([unit or _type(annotation), *bounds])


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is dict:
        return "table" if arguments[1] is Any else f"table of {_type(arguments[1])}s"
    if origin in (tuple, frozenset):
        return f"list of {_type(arguments[0])}s"
    if origin in (Annotated, Union, UnionType):
        return _type(arguments[0])
    return _WORDS.get(annotation, "number")


def _bounds(parts: Iterable[Any]) -> list[str]:
    """The bounds in a type and its metadata, at any depth. Leaves out the bounds of a table's values."""
    found: list[str] = []
    for part in parts:
        if isinstance(part, FieldInfo):
            found += _bounds(part.metadata)
        elif type(part) in _BOUNDS:
            found.append(_BOUNDS[type(part)].format(part))
        elif get_origin(part) in (Annotated, Union, UnionType):
            found += _bounds((*get_args(part)[:1], *getattr(part, "__metadata__", ())))
    return found


def _default(setting: Setting) -> str:
    """The default; if tables differ, the default of each table."""
    shown: dict[str, list[str]] = {}
    for table, value in setting.defaults.items():
        shown.setdefault(_shown(value), []).append(f"`{table}`")
    if len(shown) > 1:
        return "; ".join(f"{', '.join(tables)} {text}" for text, tables in shown.items())
    return next(iter(shown), "none, it must be set")


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value().removeprefix(NO_PEPPER)
    if isinstance(value, Path) and value.is_relative_to(PROJECT_ROOT):
        return f"`{value.relative_to(PROJECT_ROOT)}` in the checkout"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float | Decimal):
        return f"{value:,}".removesuffix(".0")
    if isinstance(value, tuple | frozenset | dict):
        return ", ".join(map(_shown, value)) or "none"
    return f"`{value}`" if value not in (None, "") else "none"


def sections(settings: type[BaseModel] = Settings) -> Iterator[SettingsTable]:
    """Each section, in the order of the fields. Raises: LookupError: a setting has no description."""
    return _walk(settings, (), {"": settings.model_construct()}, "")


def _walk(
    model: type[BaseModel], path: tuple[str, ...], tables: Mapping[str, BaseModel], about: str
) -> Iterator[SettingsTable]:
    """The section of this model, and those inside it. Args: tables: {name: a table that exists by default}."""
    summary, described = read_docstring(model)
    inner = {name: found for name, field in model.model_fields.items() if (found := _section_of(field.annotation))}
    lists = {name: one for name, field in model.model_fields.items() if (one := _listed_section(field.annotation))}
    missing = model.model_fields.keys() - inner.keys() - described.keys()
    if missing:
        raise LookupError(f"{model.__name__} does not describe {', '.join(sorted(missing))} under 'Attributes:'.")
    values = [
        _setting(name, path, field, tables, described[name])
        for name, field in model.model_fields.items()
        if name not in inner and name not in lists
    ]
    yield SettingsTable(f"[{'.'.join(path)}]" if path else "", about or summary, tuple(values))
    for name, section in lists.items():
        yield _list(section, (*path, name), described[name])
    for name, (section, is_many) in inner.items():
        here = (*path, name, "NAME") if is_many else (*path, name)
        yield from _walk(section, here, _tables_in(name, tables), described.get(name, ""))


def _list(model: type[BaseModel], path: tuple[str, ...], about: str) -> SettingsTable:
    """The section of the tables of a list. Raises: LookupError: a setting has no description."""
    _, described = read_docstring(model)
    if missing := model.model_fields.keys() - described.keys():
        raise LookupError(f"{model.__name__} does not describe {', '.join(sorted(missing))} under 'Attributes:'.")
    variable = PREFIX + "__".join(path).upper()
    values = []
    for name, field in model.model_fields.items():
        default = {} if field.is_required() else {"": field.get_default(call_default_factory=True)}
        values.append(Setting(field.alias or name, variable, field, default, described[name]))
    return SettingsTable(f"[[{'.'.join(path)}]]", about, tuple(values))


def _tables_in(name: str, tables: Mapping[str, BaseModel]) -> Mapping[str, BaseModel]:
    """The tables that this field holds by default. If its own table is one of many, the first one's tables."""
    for table in tables.values():
        value = getattr(table, name)
        return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {"": value}
    return {}


def _setting(
    name: str, path: tuple[str, ...], field: FieldInfo, tables: Mapping[str, BaseModel], description: str
) -> Setting:
    alias = field.validation_alias
    first = alias.choices[0] if isinstance(alias, AliasChoices) else alias
    defaults = {key: getattr(table, name) for key, table in tables.items() if hasattr(table, name)}
    if not tables and not field.is_required():
        defaults = {"": field.get_default(call_default_factory=True)}
    return Setting(name, str(first or "") or PREFIX + "__".join((*path, name)).upper(), field, defaults, description)


def _section_of(annotation: Any) -> tuple[type[BaseModel], bool] | None:
    """The section that a field of this type holds, and True if it holds many; None for a plain value."""
    if get_origin(annotation) is dict:
        found = _section_of(get_args(annotation)[1])
        return (found[0], True) if found else None
    return (annotation, False) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _listed_section(annotation: Any) -> type[BaseModel] | None:
    """The section of each table of a list; None for any other value."""
    found = _section_of(get_args(annotation)[0]) if get_origin(annotation) is tuple else None
    return found[0] if found else None


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
