"""What the control process says of bills."""

from collections.abc import Iterator

from sqlalchemy import Connection

from plugins.bills import store
from scheduler.hooks import ControlPart, GaugeValue

GAUGE = "headrace_bill_difference_ratio"


def _values(db: Connection) -> Iterator[GaugeValue]:
    for source, ratio in sorted(store.difference_shares(db).items()):
        yield GAUGE, [source], float(ratio)


_SAYS = "What providers' checked bills of the last 35 days and the ledger wrongly differ by, as a part of the bills."

PART = ControlPart(gauges=((GAUGE, _SAYS, ("source",)),), values=_values)
