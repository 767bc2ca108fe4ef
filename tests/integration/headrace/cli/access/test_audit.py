"""What an operator does in a terminal is a row of the audit log, which commits together with the deed."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.cli import main
from headrace.cli.database import database
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from headrace.domain.operators import OperatorAction, Role
from headrace.domain.prompts import Message
from headrace.domain.queues import Ticket
from headrace.errors import StoreUnavailable
from headrace.installed import plugins
from headrace.store import Store, apps, keys, operators
from headrace.store.audit import Audit, this_user
from headrace.tables import api_keys, audit_log, deliveries, hosts, job_texts, jobs, metadata, paused_receivers
from tests.unit.headrace.cli.test_commands import leaves

Run = Callable[..., Result]
CANARY = "canary-7f3a"
ANALYST = "analyst of the audit"

#: The commands that change something in Postgres, or read a text, with arguments for `There`.
ACTS: Mapping[str, tuple[str, OperatorAction]] = {
    "apps create": ("books --queued-jobs 3", OperatorAction.APP_CREATE),
    "apps limit": ("test --day-usd 5 --lanes high,low", OperatorAction.APP_LIMIT),
    "apps release": ("test", OperatorAction.APP_RELEASE),
    "apps webhook-secret": ("test", OperatorAction.APP_READ_SECRET),
    "apps webhook-secret --rotate": ("test", OperatorAction.APP_ROTATE_SECRET),
    "keys create": ("test --scope read", OperatorAction.KEY_CREATE),
    "keys rotate": ("{key}", OperatorAction.KEY_ROTATE),
    "keys expire": ("{key} --hours 2", OperatorAction.KEY_EXPIRE),
    "keys revoke": ("{key}", OperatorAction.KEY_REVOKE),
    "budgets set": ("--day-usd 7", OperatorAction.BUDGETS_SET),
    "budgets unset": ("", OperatorAction.BUDGETS_UNSET),
    "prices take": ("gpt-4o-mini", OperatorAction.PRICES_TAKE),
    "retry": ("{job}", OperatorAction.JOB_RETRY),
    "jobs show --text": ("{job}", OperatorAction.JOB_READ_TEXTS),
    "deliveries retry": ("{delivery}", OperatorAction.DELIVERY_RETRY),
    "deliveries pause": ("test receiver.example", OperatorAction.RECEIVER_PAUSE),
    "deliveries resume": ("test paused.example", OperatorAction.RECEIVER_RESUME),
    "hosts drain": ("host-1 --yes", OperatorAction.HOST_DRAIN),
    "hosts resume": ("host-2", OperatorAction.HOST_RESUME),
    "operators create": ("bob --role viewer --generate", OperatorAction.OPERATOR_CREATE),
    "operators password": ("ada --generate", OperatorAction.OPERATOR_PASSWORD),
    "operators role": ("ada --role viewer", OperatorAction.OPERATOR_ROLE),
    "operators delete": ("ada", OperatorAction.OPERATOR_DELETE),
    "analyst": (f"--role '{ANALYST}'", OperatorAction.ANALYST_ALLOW),
}
#: The others: they only read Postgres, or are a client of the API, or start a stack, whose keys are recorded.
CHANGE_NOTHING = frozenset(
    {
        *(
            "up",
            "submit",
            "get",
            "cancel",
            "status",
            "queues",
            "jobs",
            "jobs show",
            *("deliveries", "deliveries paused"),
            "apps list",
            "apps show",
        ),
        *(
            "keys list",
            "budgets",
            "costs",
            "prices",
            "prices diff",
            "operators list",
            "audit",
            "hosts",
            "plan",
            "scale",
        ),
        *("scale replay", "settings", "bench"),
        *(f"batch {name}" for name in ("submit", "list", "watch", "results", "cancel", "retry")),
    }
)


@dataclass(frozen=True, slots=True)
class There:
    """What the commands act on."""

    app: App
    key: str
    job: str
    delivery: str


@pytest.fixture
def there(store: Store, app: App, queued: Callable[..., Ticket]) -> There:
    job_id, delivery_id = queued(messages=(Message("user", CANARY),)).job_id, new_id()
    with store.begin() as db:
        keys.make(db, app.id, "of-the-tests")
        key_id = db.scalar(sa.select(api_keys.c.id))
        db.execute(sa.update(jobs).values(state="failed", ended_at=sa.func.now(), error_message=CANARY))
        db.execute(sa.update(job_texts).values(answer=CANARY))
        url = f"https://receiver.example/{CANARY}"
        row = {"event": "test", "url": url, "data": {}, "state": "failed"}
        db.execute(sa.insert(deliveries).values(id=delivery_id, app_id=app.id, **row))
        db.execute(sa.insert(paused_receivers).values(app_id=app.id, receiver="paused.example"))
        lease = {"pool": "chat", "ready_at": sa.func.now(), "requested_at": sa.func.now()}
        db.execute(sa.insert(hosts).values(id="host-1", **lease))
        db.execute(sa.insert(hosts).values(id="host-2", drain_at=sa.func.now(), end_reason="by_hand", **lease))
        operators.create(db, "ada", Role.ADMIN, CANARY)
    return There(app, str(key_id), show_id(job_id), f"evt_{delivery_id.hex}")


@pytest.fixture
def act(run: Run, there: There, engine: sa.Engine) -> Iterator[Callable[[str], Result]]:
    """Runs the command of this name in `ACTS`."""

    def invoke(name: str) -> Result:
        given = ACTS[name][0].format(key=there.key, job=there.job, delivery=there.delivery)
        words = ["--role", ANALYST] if name == "analyst" else given.split()
        return run(*name.split(), *words)

    yield invoke
    with engine.begin() as db:
        if db.scalar(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": ANALYST}):
            db.exec_driver_sql(f'DROP OWNED BY "{ANALYST}"; DROP ROLE "{ANALYST}"')


def rows(store: Store) -> list[Any]:
    with store.read() as db:
        return list(db.execute(sa.select(audit_log).order_by(audit_log.c.id)))


def everything(store: Store) -> dict[str, Any]:
    """All rows of all tables, and the roles."""
    with store.read() as db:
        found = {table.name: sorted(map(str, db.execute(sa.select(table)))) for table in metadata.sorted_tables}
        return {**found, "roles": sorted(db.scalars(sa.text("SELECT rolname FROM pg_roles")))}


def test_every_command_is_known_to_act_or_to_change_nothing() -> None:
    """A new one belongs into one of the two lists."""
    names = {name for name, _ in leaves(main)} - {name for plugin in plugins() for name in plugin.commands}
    acting = {name.partition(" --")[0] for name in ACTS}
    # Without --text, one of them only reads.
    assert names == acting | CHANGE_NOTHING
    assert acting & CHANGE_NOTHING == {"jobs show"}


def test_every_action_is_one_of_a_command_or_of_the_pages_alone() -> None:
    assert {action for _, action in ACTS.values()} == set(OperatorAction) - {
        OperatorAction.JOB_CANCEL,
        OperatorAction.OPERATOR_LOG_IN,
    }


@pytest.mark.parametrize("name", ACTS)
def test_what_an_operator_does_in_a_terminal_is_recorded(
    act: Callable[[str], Result], store: Store, there: There, name: str
) -> None:
    result = act(name)

    assert result.exit_code == 0, result.output
    [row] = rows(store)
    actor = this_user()
    assert (row.actor, row.source, row.action) == (actor.name, "cli", ACTS[name][1])
    of_an_app = name.split()[0] in ("keys", "retry", "deliveries", "jobs") or (
        name.startswith("apps") and "test" in ACTS[name][0]
    )
    if of_an_app:
        assert row.app_id == there.app.id
    assert CANARY not in str(row)
    assert there.app.webhook_secret not in str(row)
    for secret in result.stdout.split():
        assert len(secret) < 40 or secret not in str(row), "a new key, password or secret"


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("fault", ["before the row", "after the row"])
def test_a_fault_between_a_deed_and_its_row_leaves_neither(
    act: Callable[[str], Result], store: Store, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    before = everything(store)
    record = Audit.record_all

    def fail(*arguments: Any) -> None:
        if fault == "after the row":
            record(*arguments)
        raise RuntimeError(fault)

    monkeypatch.setattr(Audit, "record_all", fail)
    result = act(name)

    assert str(result.exception) == fault
    assert everything(store) == before


def test_a_command_that_would_change_something_without_a_row_is_refused_by_postgres(
    settings: Settings, store: Store, app: App
) -> None:
    with pytest.raises(StoreUnavailable, match="read-only transaction"), database(settings) as db:
        apps.set_limits(db, app.name, {"queued_jobs": 1})
    with store.read() as db:
        assert apps.find_app(db, app.name) == app


def test_what_was_changed_is_told_before_and_after(run: Run, store: Store, app: App) -> None:
    run("apps", "limit", "test", "--day-usd", "5", "--queued-jobs", "9")
    run("apps", "limit", "test", "--day-usd", "7.50", "--queued-jobs", "9")
    run("budgets", "set", "--month-usd", "100")
    first, second, third = rows(store)
    assert first.details == {
        "before": {"day_usd": None, "queued_jobs": None},
        "after": {"day_usd": "5", "queued_jobs": 9},
    }
    assert second.details == {"before": {"day_usd": "5"}, "after": {"day_usd": "7.5"}}
    assert third.details["after"] == {"day_usd": None, "month_usd": "100", "is_stored": True}


def test_a_key_s_row_names_it_by_what_the_list_of_keys_shows(run: Run, store: Store, app: App) -> None:
    key = run("keys", "create", "test", "--scope", "read").stdout.strip()
    new = run("keys", "rotate", key).stdout.split()[0]
    made, rotated = rows(store)
    assert made.details == {"hint": key[:8], "scopes": ["read"], "expires_at": None}
    assert (rotated.subject, rotated.details["hint"]) == (made.subject, key[:8])
    assert rotated.details["new"]["hint"] == new[:8]
    assert UUID(rotated.details["new"]["id"])


def test_the_audit_log_is_listed_newest_first_and_filtered(run: Run, app: App) -> None:
    assert run("audit").stdout == "No operator has done anything.\n"
    run("apps", "create", "shop")
    run("keys", "create", "shop")
    run("budgets", "set", "--day-usd", "5")

    def actions(*arguments: str) -> list[str]:
        return [each["action"] for each in json.loads(run("audit", "--json", *arguments).stdout)]

    assert actions() == ["budgets.set", "key.create", "app.create"]
    assert actions("--app", "shop") == ["key.create", "app.create"]
    assert actions("--action", "key.create") == ["key.create"]
    assert actions("--actor", this_user().name, "--limit", "1") == ["budgets.set"]
    assert actions("--actor", "ada") == actions("--until", "1h") == []
    assert actions("--since", "1h") == actions()
    lines = run("audit").stdout.splitlines()
    assert len(lines) == 4
    assert 'after={"day_usd":"5","is_stored":true,"month_usd":null}' in lines[1]
    assert run("audit", "--actor", "ada").stdout == "There are no such rows.\n"
