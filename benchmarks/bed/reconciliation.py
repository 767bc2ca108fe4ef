"""The ledger of a running stack beside the bills of its provider and of its hosts."""

from decimal import Decimal

import sqlalchemy as sa

from bed.testbed import Testbed
from headrace.store.money import cost_hours
from headrace.store.money.cost_hours import Reconciliation
from headrace.store.money.host_hours import HostTerms

#: The largest difference that is none, as a part of the bills.
LARGEST = 0.001


def reconcile(bed: Testbed, provider_usd: Decimal = Decimal(0)) -> Reconciliation:
    """Compare them up to now. No job may be open. Args: provider_usd: as the provider itself has counted it."""
    engine = sa.create_engine(bed.stack.report.database_url)
    try:
        with engine.begin() as db:
            return cost_hours.reconcile(db, HostTerms(), provider_usd)
    finally:
        engine.dispose()
