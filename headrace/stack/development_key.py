"""The API key of the one-machine stack, for an app without limits. A file keeps it across restarts."""

from headrace import connections
from headrace.config import Settings
from headrace.errors import Unauthenticated
from headrace.stack.secret import write_private
from headrace.store import Store, actions
from headrace.store.audit import acting, this_user
from headrace.store.clients import apps, keys

APP = "development"


def make_development_key(settings: Settings) -> str:
    """The kept key if it is still valid, else a new one."""
    path = settings.state_dir / "api-key"
    pepper = settings.pepper.get_secret_value()
    store = Store(connections.postgres(settings, pool_size=1))
    try:
        kept = path.read_text().strip() if path.exists() else None
        if kept is not None and _is_valid(store, kept, pepper):
            return kept
        with acting(store, this_user()) as audit:
            apps.ensure(audit.db, APP)
            key, _ = actions.create_key(audit, APP, pepper)
    finally:
        store.close()
    write_private(path, key)
    return key


def _is_valid(store: Store, key: str, pepper: str) -> bool:
    try:
        with store.read() as db:
            keys.authenticate(db, key, pepper)
    except Unauthenticated:
        return False
    return True
