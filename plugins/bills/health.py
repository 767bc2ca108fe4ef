"""What is wrong with bills."""

from sqlalchemy import Connection

from headrace.policies.health import Problem
from plugins.bills import store
from plugins.bills.checks import ALARM


def problems(db: Connection) -> list[Problem]:
    """A problem for each source whose bills are not what the ledger says."""
    return [
        Problem(
            *("HeadraceBillDiffers", "watch", f"{part:.1%} of the bill of {source} is not what the ledger says."),
            "The page of bills has each difference with its cause.",
            "bills.show_bills",
        )
        for source, part in store.difference_shares(db).items()
        if part > ALARM
    ]
