"""The ledger of a running stack beside the bills of its provider and of its hosts."""

from decimal import Decimal

import sqlalchemy as sa

from bed.testbed import Testbed
from headrace.config import CostSettings
from headrace.store.money import reconciliation
from headrace.store.money.reconciliation import Reconciliation

#: The largest difference that is none, as a part of the bills.
LARGEST = 0.001


def reconcile(bed: Testbed, provider_usd: Decimal = Decimal(0)) -> Reconciliation:
    """Compare them up to now. No job may be open. Args: provider_usd: as the provider itself has counted it."""
    engine = sa.create_engine(bed.stack.report.database_url)
    try:
        with engine.begin() as db:
            return reconciliation.reconcile(db, CostSettings(), provider_usd)
    finally:
        engine.dispose()
