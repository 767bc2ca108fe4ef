"""What own hosts cost, hour by hour, how the requests of each hour share it, and the prices of tokens."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from headrace.tables.columns import USD, metadata, moment, one_of

#: Factors and shares for each unit of work, with more decimals than amounts.
RATE = sa.Numeric(36, 18)
#: What the work of a request is measured in.
WEIGH_BY = ("tokens", "kv")

cost_hours = sa.Table(
    "cost_hours",
    metadata,
    sa.Column("pool", sa.Text, primary_key=True),
    sa.Column("hour", sa.TIMESTAMP(timezone=True), primary_key=True, comment="Its start, in UTC."),
    sa.Column("host_s", sa.Numeric(18, 6), nullable=False, comment="Seconds of hosts that the bill covers."),
    sa.Column(
        "boot_s", sa.Numeric(18, 6), nullable=False, comment="The part of these seconds before the host was ready."
    ),
    sa.Column("unpriced_hosts", sa.Integer, nullable=False, comment="Hosts of that hour without a price."),
    sa.Column("bill_usd", USD, nullable=False),
    sa.Column("boot_usd", USD, nullable=False, comment="The part of the bill for boot_s."),
    sa.Column("requests", sa.BigInteger, nullable=False, comment="Entries of the kind compute of that hour."),
    sa.Column("work", sa.Numeric(36, 9), nullable=False, comment="The work of these requests."),
    sa.Column("compute_usd", USD, nullable=False, comment="Their prices."),
    sa.Column("waste_usd", USD, nullable=False, comment="The prices of failed and lost attempts on own hosts."),
    sa.Column("factor", RATE, nullable=False, comment="The part of each price that the bill covers."),
    sa.Column("idle_usd_per_work", RATE, nullable=False, comment="A request's share of what no price covers."),
    sa.Column("platform_usd", USD, nullable=False, comment="What no request pays: waste, and digits below the last."),
    sa.Column("weigh_by", sa.Text, nullable=False),
    sa.Column("cached_weight", sa.Numeric(9, 4), nullable=False),
    sa.Column("output_weight", sa.Numeric(9, 4), nullable=False),
    moment("closed_at", nullable=False),
    one_of("weigh_by", WEIGH_BY, "weigh_by"),
    comment="One row for each pool and each hour of UTC in which its hosts were billed.",
)

host_hours = sa.Table(
    "host_hours",
    metadata,
    sa.Column("hour", sa.TIMESTAMP(timezone=True), primary_key=True, comment="Its start, in UTC."),
    sa.Column(
        "machine",
        sa.Text,
        primary_key=True,
        comment="The name that the machine's leases share, or its name in [[owned_hosts]].",
    ),
    sa.Column("pool", sa.Text, primary_key=True),
    sa.Column("instance_type", sa.Text, comment="A NAME of [hosts.NAME]."),
    sa.Column("is_owned", sa.Boolean, nullable=False, comment="[[owned_hosts]] has it: it is billed by the calendar."),
    sa.Column("is_priced", sa.Boolean, nullable=False, comment="False: no lease of it has a price; it has no bill."),
    sa.Column("leased_s", sa.Numeric(18, 6), nullable=False, comment="Seconds of the pool's leases of the machine."),
    sa.Column("share", RATE, nullable=False, comment="The pool's part of the machine's bill."),
    sa.Column("host_s", sa.Numeric(18, 6), nullable=False, comment="The pool's part of the billed seconds."),
    sa.Column("boot_s", sa.Numeric(18, 6), nullable=False, comment="The part of host_s before the machine was ready."),
    sa.Column("dead_s", sa.Numeric(18, 6), nullable=False, comment="The part of host_s without a lease."),
    sa.Column("bill_usd", USD, nullable=False, comment="The pool's part of the machine's bill."),
    sa.Column("boot_usd", USD, nullable=False, comment="The part of bill_usd for boot_s."),
    sa.Column("dead_usd", USD, nullable=False, comment="The part of bill_usd for dead_s."),
    sa.Column("billed_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now(), index=True),
    sa.Index("ix_host_hours_pool_hour", "pool", "hour"),
    comment="What each machine cost in each hour of UTC, and how its pools share that. A machine has one bill, "
    "whichever pools it serves.",
)

own_prices = sa.Table(
    "own_prices",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("instance_type", sa.Text, nullable=False, comment="A NAME of [hosts.NAME]."),
    sa.Column("usd_per_hour", USD, nullable=False),
    sa.Column("tokens_per_s", sa.Float, nullable=False, comment="What one saturated host of the type serves."),
    sa.Column(
        "work_per_token", sa.Float, nullable=False, comment="The mean work of a token of the pool's requests then."
    ),
    sa.Column("input_usd_per_mtok", USD, nullable=False),
    sa.Column("cached_input_usd_per_mtok", USD, nullable=False),
    sa.Column("output_usd_per_mtok", USD, nullable=False),
    sa.Index("ix_own_prices_pool_id", "pool", "id"),
    comment="What a token costs on own hosts while they are saturated. The newest row of a pool counts.",
)

list_prices = sa.Table(
    "list_prices",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("model", sa.Text, nullable=False, comment="As calls of the paid API name it."),
    moment("valid_from", nullable=False, comment="When an operator took this price."),
    moment("valid_to", comment="When another price took its place; NULL: it is in force."),
    sa.Column("input_usd_per_mtok", USD, nullable=False),
    sa.Column("cached_input_usd_per_mtok", USD, nullable=False),
    sa.Column("output_usd_per_mtok", USD, nullable=False),
    sa.Column("tiers", JSONB, nullable=False, comment="Factors of the price by the provider's service tier."),
    sa.Column("source", sa.Text, nullable=False, comment="The library, its version, and its name of the model."),
    sa.CheckConstraint("valid_to > valid_from", name="valid"),
    sa.Index("uq_list_prices_in_force", "model", unique=True, postgresql_where=sa.text("valid_to IS NULL")),
    comment="Providers' list prices. Only valid_to of a row changes. [prices] in headrace.toml overrides them.",
)

#: Sums of a day may be larger than an entry.
SUM = sa.Numeric(36, 9)

closed_days = sa.Table(
    "closed_days",
    metadata,
    sa.Column("day", sa.TIMESTAMP(timezone=True), primary_key=True, comment="Its start, in UTC."),
    sa.Column("hours", sa.Integer, nullable=False, comment="Rows of cost_hours that its sums rest on."),
    moment("hours_closed_at", comment="When the last of them was closed; NULL: there are none."),
    moment("closed_at", nullable=False),
    comment="Days whose charges are summed up in cost_days, charge_days, user_days and label_days. A day has no gap "
    "before it.",
)

cost_days = sa.Table(
    "cost_days",
    metadata,
    sa.Column("day", sa.TIMESTAMP(timezone=True), nullable=False, index=True),
    sa.Column("app_id", sa.Uuid, comment="NULL: the platform."),
    sa.Column("pool", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("lane", sa.Text),
    sa.Column("route", sa.Text),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("users", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("usd", SUM, nullable=False),
    sa.Column("full_usd", SUM, nullable=False),
    sa.Column("waste_usd", SUM, nullable=False),
    sa.Column("api_usd", SUM),
    comment="The sums of closed days behind cost_per_day, which also has the days since.",
)

charge_days = sa.Table(
    "charge_days",
    metadata,
    sa.Column("day", sa.TIMESTAMP(timezone=True), nullable=False, index=True),
    sa.Column("app_id", sa.Uuid, comment="NULL: the platform."),
    sa.Column("pool", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("is_closed", sa.Boolean, nullable=False, comment="full_usd shares the bill of hosts."),
    sa.Column("requests", sa.BigInteger, nullable=False, comment="Entries of the ledger, waste included."),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("usd", SUM, nullable=False),
    sa.Column("full_usd", SUM, nullable=False),
    sa.Column("api_usd", SUM),
    comment="The sums of closed days by kind of charge. /ops/cost and headrace costs read them as long as they have "
    "each entry of the ledger.",
)

user_days = sa.Table(
    "user_days",
    metadata,
    sa.Column("day", sa.TIMESTAMP(timezone=True), nullable=False, index=True),
    sa.Column("app_id", sa.Uuid),
    sa.Column("users", sa.BigInteger, nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("full_usd", SUM, nullable=False),
    comment="The sums of closed days behind cost_per_user_day, which also has the days since.",
)

label_keys = sa.Table(
    "label_keys",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    comment="Keys of metadata by which costs are split: [costs].label_keys, as the control process has them.",
)

label_days = sa.Table(
    "label_days",
    metadata,
    sa.Column("day", sa.TIMESTAMP(timezone=True), nullable=False, index=True),
    sa.Column("app_id", sa.Uuid),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("usd", SUM, nullable=False),
    sa.Column("full_usd", SUM, nullable=False),
    sa.Column("waste_usd", SUM, nullable=False),
    sa.Column("api_usd", SUM),
    comment="The sums of closed days behind cost_per_label_day, which also has the days since.",
)
