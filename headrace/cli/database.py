"""Postgres for operators' commands, which work without the API. Knows nothing of their queries.

A command that changes something does so by `headrace.store.actions`, so that the audit log has it: `database` refuses
every change.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Connection

from headrace import connections
from headrace.config import Settings
from headrace.errors import StoreBusy, StoreUnavailable
from headrace.stack.state_folder import StackReport, no_stack, persistent_secret
from headrace.store import Store
from headrace.store.audit import Audit, acting, this_user


def operator_settings() -> Settings:
    """The settings. Without DATABASE_URL, uses the database and the pepper of the stack that runs on this machine."""
    settings = Settings.load()
    if (stack := local_stack(settings)) is None:
        return settings
    changes: dict[str, Any] = {"database_url": stack.database_url}
    if "pepper" not in settings.model_fields_set:
        changes["pepper"] = SecretStr(persistent_secret(settings.state_dir / "pepper"))
    return settings.model_copy(update=changes)


def local_stack(settings: Settings) -> StackReport | None:
    """The stack that runs on this machine, unless the settings name another database. None without one."""
    if "database_url" in settings.model_fields_set:
        return None
    try:
        return StackReport.read(settings.state_dir / "stack.json")
    except OSError:
        return None


@contextmanager
def database(settings: Settings | None = None) -> Iterator[Connection]:
    """One transaction on the operator's database, to read. Raises: StoreUnavailable. ConfigError."""
    with _store(settings) as store, store.read() as db:
        yield db


@contextmanager
def operating(settings: Settings | None = None) -> Iterator[Audit]:
    """One transaction on the operator's database, in which this user acts. Raises: StoreUnavailable. ConfigError."""
    with _store(settings) as store, acting(store, this_user()) as audit:
        yield audit


@contextmanager
def _store(settings: Settings | None) -> Iterator[Store]:
    used = settings or operator_settings()
    store = Store(connections.postgres(used, pool_size=1))
    try:
        with hints(used):
            yield store
    finally:
        store.close()


@contextmanager
def hints(settings: Settings) -> Iterator[None]:
    """Say what to do if Postgres does not answer. Args: settings: the operator's."""
    try:
        yield
    except StoreBusy as error:
        raise StoreBusy(f"{error}. 'headrace status' names a session that holds a lock.") from error
    except StoreUnavailable as error:
        # Set by the user, or by the stack that was found.
        is_known = "database_url" in settings.model_fields_set
        where = "Start the stack" if is_known else f"{no_stack(settings)}: start it"
        raise StoreUnavailable(f"{error}. {where} with 'headrace up', or set DATABASE_URL.") from error
