"""Count a correction in the ledger as no request, and a user whose attempts all failed as no user with a charge.

Revision: 0044, after 0043
"""

from alembic import context, op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

CHANGES = (
    ("count(*) FILTER (WHERE kind <> 'waste'),", "count(*) FILTER (WHERE kind IN ('compute', 'api', 'cache')),"),
    ("count(DISTINCT end_user),\n", "count(DISTINCT end_user) FILTER (WHERE kind <> 'waste'),\n"),
    (
        "count(DISTINCT end_user), count(*), sum",
        "count(DISTINCT end_user), count(*) FILTER (WHERE kind IN ('compute', 'api', 'cache')), sum",
    ),
)
# These days are closed again: their sums counted what the functions now leave out.
REOPEN = """
    UPDATE closed_days SET hours = -1
    WHERE day IN (
        SELECT date_trunc('day', at, 'UTC') FROM ledger WHERE kind NOT IN ('compute', 'api', 'cache')
    )
"""


def _functions() -> dict[str, tuple[str, str]]:
    functions: dict[str, tuple[str, str]] = context.script.get_revision("0036").module.FUNCTIONS
    return functions


def upgrade() -> None:
    for signature, (returns, body) in _functions().items():
        for before, after in CHANGES:
            body = body.replace(before, after)
        _replace(signature, returns, body)
    op.execute(REOPEN)


def downgrade() -> None:
    for signature, (returns, body) in _functions().items():
        _replace(signature, returns, body)
    op.execute(REOPEN)


def _replace(signature: str, returns: str, body: str) -> None:
    op.execute(
        f"CREATE OR REPLACE FUNCTION {signature} RETURNS {returns} LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 "
        f"AS $${body}$$"
    )
