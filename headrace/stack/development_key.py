"""The API key of the one-machine stack, for an app without limits. A file keeps it across restarts."""

from headrace import connections
from headrace.config import Settings
from headrace.errors import Unauthenticated
from headrace.stack.secret import write_private
from headrace.store.clients import apps, keys

APP = "development"


def make_development_key(settings: Settings) -> str:
    """The kept key if it is still valid, else a new one."""
    path = settings.state_dir / "api-key"
    pepper = settings.pepper.get_secret_value()
    engine = connections.postgres(settings, pool_size=1)
    try:
        with engine.begin() as db:
            if path.exists():
                kept = path.read_text().strip()
                try:
                    keys.authenticate(db, kept, pepper)
                except Unauthenticated:
                    pass
                else:
                    return kept
            key = keys.make(db, apps.ensure(db, APP).id, pepper)
    finally:
        engine.dispose()
    write_private(path, key)
    return key
