"""What operators do, at the pages and in a terminal. Each function acts and records it, in the operator's transaction.

Pages and commands change nothing in any other way, so no deed is without its row in the audit log.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import Price
from headrace.domain.apps import App, Changes, KeyRecord, Scope
from headrace.domain.hosts import HostWork
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.limits import Limits
from headrace.domain.operators import Operator, OperatorAction, Role
from headrace.store import analyst, apps, deliveries, jobs, keys, operators
from headrace.store.audit import Audit, Deed
from headrace.store.fleet import host_list
from headrace.store.jobs import confinements, overview
from headrace.store.jobs.overview import History, history
from headrace.store.money import budgets, tariffs
from headrace.store.money.tariffs import ListPrice
from headrace.tables import deliveries as delivery_rows
from headrace.tables import jobs as job_rows

#: The subject of what all apps together may spend, and of the list prices.
ALL = "all"


def create_app(audit: Audit, name: str, limits: Changes) -> App:
    """Raises: InvalidRequest: the name is taken."""
    app = apps.create(audit.db, name, limits)
    audit.record(OperatorAction.APP_CREATE, name, app.id, limits=dict(limits))
    return app


def limit_app(audit: Audit, name: str, changes: Changes) -> App:
    """Change an app's limits. Raises: NotFound."""
    before = apps.find_app(audit.db, name, is_locked=True)
    after = apps.set_limits(audit.db, name, changes)
    was, now = _limits(before), _limits(after)
    changed = [limit for limit in changes if was[limit] != now[limit]]
    audit.record(
        OperatorAction.APP_LIMIT,
        name,
        after.id,
        before={limit: was[limit] for limit in changed},
        after={limit: now[limit] for limit in changed},
    )
    return after


def _limits(app: App) -> dict[str, Any]:
    """The values that `Changes` names."""
    limits = {name: getattr(app.limits, name) for name in app.limits.__dataclass_fields__}
    return {**limits, "lanes": app.lanes, "cache_s": app.cache_s, "max_error": app.max_error}


def release_app(audit: Audit, name: str) -> list[str]:
    """End an app's confinements. Returns: the pools. Raises: NotFound."""
    app = apps.find_app(audit.db, name)
    pools = confinements.lift(audit.db, app.id)
    audit.record(OperatorAction.APP_RELEASE, name, app.id, pools=pools)
    return pools


def read_webhook_secret(audit: Audit, name: str) -> App:
    """Raises: NotFound."""
    app = apps.find_app(audit.db, name)
    audit.record(OperatorAction.APP_READ_SECRET, name, app.id)
    return app


def rotate_webhook_secret(audit: Audit, name: str, keep_old_for: timedelta) -> tuple[App, datetime]:
    """The app with its new secret, and until when the old one signs too. Raises: NotFound."""
    app, until = apps.rotate_webhook_secret(audit.db, name, keep_old_for=keep_old_for)
    audit.record(OperatorAction.APP_ROTATE_SECRET, name, app.id, old_signs_until=until)
    return app, until


def create_key(
    audit: Audit, app_name: str, pepper: str, scopes: Iterable[Scope] = tuple(Scope), lifetime: timedelta | None = None
) -> tuple[str, KeyRecord]:
    """The new key, which cannot be shown again, and what is stored of it. Raises: NotFound."""
    app = apps.find_app(audit.db, app_name)
    key = keys.make(audit.db, app.id, pepper, scopes=scopes, lifetime=lifetime)
    made = keys.record_of(audit.db, key, pepper)
    audit.record(OperatorAction.KEY_CREATE, str(made.id), app.id, **_key(made))
    return key, made


def rotate_key(
    audit: Audit, text: str, pepper: str, keep_old_for: timedelta, lifetime: timedelta | None
) -> tuple[str, KeyRecord, KeyRecord]:
    """The new key, what is stored of it, and the old key as it is now. Raises: NotFound. InvalidRequest."""
    old = keys.find(audit.db, text)
    key = keys.rotate(audit.db, old, pepper, keep_old_for=keep_old_for, lifetime=lifetime)
    made, ending = keys.record_of(audit.db, key, pepper), keys.find(audit.db, str(old.id))
    ends = {"expires_at": old.expires_at}, {"expires_at": ending.expires_at}
    _record_key(audit, OperatorAction.KEY_ROTATE, old, *ends, new={"id": made.id, **_key(made)})
    return key, made, ending


def expire_key(audit: Audit, text: str, after: timedelta) -> KeyRecord:
    """The key as it is now. Raises: NotFound. InvalidRequest: it is expired or revoked."""
    old = keys.find(audit.db, text)
    keys.expire(audit.db, old, after)
    changed = keys.find(audit.db, str(old.id))
    _record_key(
        audit, OperatorAction.KEY_EXPIRE, old, {"expires_at": old.expires_at}, {"expires_at": changed.expires_at}
    )
    return changed


def revoke_key(audit: Audit, text: str) -> KeyRecord:
    """The key as it is now. Raises: NotFound."""
    old = keys.find(audit.db, text)
    keys.revoke(audit.db, old)
    _record_key(audit, OperatorAction.KEY_REVOKE, old, {"state": old.state}, {"state": "revoked"})
    return keys.find(audit.db, str(old.id))


def _record_key(
    audit: Audit,
    action: OperatorAction,
    key: KeyRecord,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    **details: Any,
) -> None:
    app_id = apps.find_app(audit.db, key.app).id
    audit.record(action, str(key.id), app_id, hint=key.hint, before=before, after=after, **details)


def _key(key: KeyRecord) -> dict[str, Any]:
    """What the log holds of a key."""
    return {"hint": key.hint, "scopes": key.scopes, "expires_at": key.expires_at}


def set_budgets(audit: Audit, changes: Mapping[str, Decimal | None], configured: Limits) -> None:
    """Store limits of all apps together. Args: see `budgets.set_limits`."""
    before = _amounts(audit.db, configured)
    budgets.set_limits(audit.db, changes, configured)
    audit.record(OperatorAction.BUDGETS_SET, ALL, before=before, after=_amounts(audit.db, configured))


def unset_budgets(audit: Audit, configured: Limits) -> bool:
    """Delete the stored limits of all apps together. Returns: False if none were stored."""
    before = _amounts(audit.db, configured)
    was_stored = budgets.clear_limits(audit.db)
    audit.record(OperatorAction.BUDGETS_UNSET, ALL, before=before, after=_amounts(audit.db, configured))
    return was_stored


def _amounts(db: Connection, configured: Limits) -> dict[str, Any]:
    limits = budgets.limits(db, configured)
    return {"day_usd": limits.day_usd, "month_usd": limits.month_usd, "is_stored": limits.is_stored}


def take_prices(audit: Audit, prices: Iterable[ListPrice]) -> dict[str, Price]:
    """Put list prices in force where they differ from those that are. Returns: those of each model before."""
    # Before the prices in force are read: otherwise two operators at once would each see their own as new.
    tariffs.hold_list(audit.db)
    before = tariffs.current_list(audit.db)
    taken = tariffs.take_list(audit.db, prices)
    audit.record(
        OperatorAction.PRICES_TAKE,
        ALL,
        before={each.model: _per_mtok(before[each.model]) for each in taken if each.model in before},
        after={each.model: _per_mtok(each) for each in taken},
    )
    return before


def _per_mtok(price: Price | ListPrice) -> dict[str, Any]:
    names = ("input_usd_per_mtok", "cached_input_usd_per_mtok", "output_usd_per_mtok", "tiers", "source")
    return {name: getattr(price, name) for name in names}


def retry_jobs(audit: Audit, job_ids: Iterable[UUID], *, with_poison: bool = False) -> dict[UUID, UUID]:
    """The new job of each failed one. Args, raises: see `overview.retry`."""
    news = overview.retry(audit.db, job_ids, with_poison=with_poison)
    owners = _owners(audit.db, job_rows, list(news))
    audit.record_all(
        OperatorAction.JOB_RETRY,
        [Deed(show_id(old), owners[old], {"retried_as": show_id(new)}) for old, new in news.items()],
    )
    return news


def cancel_job(audit: Audit, job_id: UUID) -> Job:
    """The job as it is now: its worker stops a running one soon. Raises: NotFound."""
    job = jobs.cancel(audit.db, None, job_id)
    audit.record(OperatorAction.JOB_CANCEL, show_id(job_id), job.app_id, state=job.state)
    return job


def read_texts(audit: Audit, job_id: UUID) -> History:
    """A job's history with its prompt and answer. Raises: NotFound."""
    found = history(audit.db, job_id, with_texts=True)
    audit.record(OperatorAction.JOB_READ_TEXTS, show_id(job_id), found.job.app_id, is_erased=found.texts is None)
    return found


def retry_deliveries(audit: Audit, texts: Sequence[str]) -> list[UUID]:
    """Send webhooks again; returns their ids. Raises: NotFound: one does not exist, and none is sent again."""
    retried = deliveries.retry(audit.db, texts)
    owners = _owners(audit.db, delivery_rows, retried)
    audit.record_all(OperatorAction.DELIVERY_RETRY, [Deed(f"evt_{each.hex}", owners[each], {}) for each in owners])
    return retried


def pause_receiver(audit: Audit, app_name: str, text: str) -> tuple[str, int]:
    """The receiver, and how many deliveries wait for it. Raises: NotFound. InvalidRequest: the text names none."""
    app, receiver = apps.find_app(audit.db, app_name), deliveries.read_receiver(text)
    waiting = deliveries.pause(audit.db, app.id, receiver)
    audit.record(OperatorAction.RECEIVER_PAUSE, receiver, app.id)
    return receiver, waiting


def resume_receiver(audit: Audit, app_name: str, text: str) -> tuple[str, int]:
    """The receiver, and how many deliveries wait for it. Raises: NotFound: also if it is not paused. InvalidRequest."""
    app, receiver = apps.find_app(audit.db, app_name), deliveries.read_receiver(text)
    waiting = deliveries.resume(audit.db, app.id, receiver)
    audit.record(OperatorAction.RECEIVER_RESUME, receiver, app.id)
    return receiver, waiting


def _owners(db: Connection, table: sa.Table, ids: Collection[UUID]) -> dict[UUID, UUID | None]:
    rows = db.execute(sa.select(table.c.id, table.c.app_id).where(table.c.id.in_(ids)))
    return {row.id: row.app_id for row in rows}


def drain_host(audit: Audit, name: str, pool: str | None = None) -> HostWork:
    """The host before it began to drain. Raises: see `host_list.drain_by_hand`."""
    before = host_list.drain_by_hand(audit.db, name, pool)
    audit.record(OperatorAction.HOST_DRAIN, before.lease.id, pool=before.lease.pool, state_before=before.lease.state)
    return before


def resume_host(audit: Audit, name: str, pool: str | None = None) -> HostWork:
    """The host before it was called back. Raises: see `host_list.resume`."""
    before = host_list.resume(audit.db, name, pool)
    audit.record(OperatorAction.HOST_RESUME, before.lease.id, pool=before.lease.pool, state_before=before.lease.state)
    return before


def create_operator(audit: Audit, name: str, role: Role, password_hash: str) -> Operator:
    """Raises: InvalidRequest: the name is taken."""
    operator = operators.create(audit.db, name, role, password_hash)
    audit.record(OperatorAction.OPERATOR_CREATE, name, role=role)
    return operator


def set_password(audit: Audit, name: str, password_hash: str) -> None:
    """Raises: NotFound."""
    operators.set_password(audit.db, name, password_hash)
    audit.record(OperatorAction.OPERATOR_PASSWORD, name)


def set_role(audit: Audit, name: str, role: Role) -> None:
    """Raises: NotFound."""
    before = operators.named(audit.db, name)
    operators.set_role(audit.db, name, role)
    audit.record(OperatorAction.OPERATOR_ROLE, name, before=before and before.role, after=role)


def delete_operator(audit: Audit, name: str) -> None:
    """Raises: NotFound."""
    operators.delete(audit.db, name)
    audit.record(OperatorAction.OPERATOR_DELETE, name)


def log_in(audit: Audit, operator: Operator) -> None:
    """Forget the failed logins of an operator whose password was right."""
    operators.forgive(audit.db, operator.name)
    audit.record(OperatorAction.OPERATOR_LOG_IN, operator.name, role=operator.role)


def allow_analyst(audit: Audit, role: str, password: str) -> bool:
    """Make the role that reads the figures, or renew its rights; see `analyst.allow`. Raises: ConfigError."""
    is_complete = analyst.allow(audit.db, role, password)
    audit.record(OperatorAction.ANALYST_ALLOW, role)
    return is_complete
