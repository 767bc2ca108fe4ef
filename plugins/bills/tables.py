"""The tables of bills."""

import sqlalchemy as sa

from headrace.tables.columns import metadata, one_of
from headrace.tables.costs import SUM
from plugins.bills.checks import BillSource

bills = sa.Table(
    "bills",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("source", sa.Text, nullable=False, comment="hosts, or api: the paid API."),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("lines", sa.Integer, nullable=False),
    sa.Column("first_day", sa.Date, nullable=False, comment="Of UTC."),
    sa.Column("last_day", sa.Date, nullable=False),
    sa.Column("ledger_usd", SUM, nullable=False, comment="What the ledger had of these days."),
    sa.Column("billed_usd", SUM, nullable=False, comment="What the provider charged."),
    sa.Column("checked_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    one_of("source", BillSource, "source"),
    info={"plugin": "bills"},
    comment="Each bill from outside that an operator has compared with the ledger.",
)

bill_checks = sa.Table(
    "bill_checks",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("day", sa.TIMESTAMP(timezone=True), primary_key=True, comment="Its start, in UTC."),
    sa.Column("name", sa.Text, primary_key=True, comment="The machine, or the model of the paid API."),
    sa.Column("pool", sa.Text, primary_key=True, comment="Empty: only the bill has it."),
    sa.Column("cause", sa.Text, primary_key=True, comment="Why both differ; none: what both have."),
    sa.Column("kind", sa.Text, comment="The machine's type."),
    sa.Column("ledger_usd", SUM, nullable=False),
    sa.Column("billed_usd", SUM, nullable=False),
    sa.Column("ledger_quantity", sa.Numeric(36, 6), nullable=False, comment="Hours, or tokens by their price."),
    sa.Column("billed_quantity", sa.Numeric(36, 6), nullable=False),
    sa.Column("bill_id", sa.ForeignKey("bills.id"), nullable=False),
    info={"plugin": "bills"},
    comment="What the ledger and the last checked bill have of each day. The amounts of each side add up to it.",
)
