"""Which `HEADRACE_*` variables mean something, and which one has a wrong value. A misspelt one would be ignored."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from headrace.errors import ConfigError, did_you_mean

PREFIX = "HEADRACE_"
#: Variables that are no fields of the settings: the file's path, and the address on which the Procfile's `web` listens.
OTHERS = ("CONFIG", "HOST")
#: Kubernetes describes each Service to every container of its namespace, and a Service may be called `headrace-web`.
_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_KUBERNETES_URL = re.compile(r"(tcp|udp|sctp)://")


def check_names(environment: Mapping[str, str], settings: type[BaseModel]) -> None:
    """Refuse a variable that no setting has. An empty one sets nothing, and passes.

    Raises: ConfigError that names the variable and the nearest name.
    """
    for variable, value in environment.items():
        name = variable.upper()
        if not name.startswith(PREFIX) or not value or _is_kubernetes(name, value):
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        if not _is_known(settings, path):
            hint = did_you_mean(name, [PREFIX + known for known in _names(settings, path)])
            hint = hint or " Unset it, or correct its name."
            raise ConfigError(f"The variable {variable} names no setting.{hint}", param=variable)


def named_error(error: ValidationError, settings: type[BaseModel]) -> ConfigError:
    """The error that names the first wrong setting, its variable, and its value unless that is a secret."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = ".".join(path)
    # The few with another name of their own are reported by it.
    is_field = bool(path) and path[0] in settings.model_fields
    variable = f" ({PREFIX}{'__'.join(path).upper()})" if is_field else ""
    got = "" if name.endswith("secret") else f" Got {first['input']!r}."
    return ConfigError(f"Setting {name}{variable}: {first['msg']}.{got}", param=name)


def _is_kubernetes(name: str, value: str) -> bool:
    return bool(_KUBERNETES.search(name) or (name.endswith("_PORT") and _KUBERNETES_URL.match(value)))


def _is_known(settings: type[BaseModel], path: Sequence[str]) -> bool:
    if len(path) == 1 and path[0].upper() in (*OTHERS, *_aliases(settings)):
        return True
    return _leads_somewhere(settings, path)


def _leads_somewhere(kind: Any, path: Sequence[str]) -> bool:
    """Whether these parts name a value of this type. The keys of a table are the operator's own."""
    if not path:
        return True
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(path[0])
        return field is not None and _leads_somewhere(field.annotation, path[1:])
    inner = _inner(kind)
    return inner is not None and _leads_somewhere(inner, path[1:])


def _inner(kind: Any) -> Any:
    """The type of a table's values; None: this is no table. Values of any type take any further parts."""
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    return Any if kind is Any else None


def _aliases(settings: type[BaseModel]) -> Iterator[str]:
    for field in settings.model_fields.values():
        if isinstance(field.validation_alias, str):
            yield field.validation_alias.removeprefix(PREFIX)


def _names(kind: Any, path: Sequence[str]) -> Iterator[str]:
    """Every name that may have been meant. A table's key is the one that the misspelt name has."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield name.upper()
            for rest in _names(field.annotation, path[1:]):
                yield f"{name}__{rest}".upper()
    elif path and (inner := _inner(kind)) not in (None, Any):
        for rest in _names(inner, path[1:]):
            yield f"{path[0]}__{rest}".upper()
