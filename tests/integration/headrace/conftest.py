"""What happens to an app, put straight into Postgres."""

from collections.abc import Callable
from decimal import Decimal

import pytest
import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.store import Store
from headrace.tables import ledger


@pytest.fixture
def charge(store: Store, app: App) -> Callable[..., None]:
    """Writes an entry of the ledger for the app `test`."""

    def write(usd: str, kind: str = "compute", hours_ago: float = 0) -> None:
        at = sa.func.now() - sa.text(f"interval '{hours_ago} hours'")
        with store.begin() as db:
            db.execute(sa.insert(ledger).values(kind=kind, app_id=app.id, usd=Decimal(usd), at=at))

    return write
