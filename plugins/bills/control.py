"""What the control process says of bills."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

from plugins.bills import store

GAUGES = (
    (
        "headrace_bill_difference_ratio",
        "What providers' checked bills of the last 35 days and the ledger wrongly differ by, as a part of the bills.",
        ("source",),
    ),
)


def values(db: Connection) -> Iterator[tuple[str, Sequence[str], float]]:
    """The name of each gauge, the values of its labels, and its own."""
    for source, ratio in sorted(store.difference_shares(db).items()):
        yield "headrace_bill_difference_ratio", [source], float(ratio)
