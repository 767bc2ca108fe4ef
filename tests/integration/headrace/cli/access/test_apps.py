"""`headrace apps`: what an operator sees, and what changes."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.domain.apps import UNLIMITED, App, AppLimits
from headrace.domain.queues import Lane, Ticket
from headrace.store import Store, apps
from headrace.tables import confinements

Run = Callable[..., Result]


def find(store: Store, name: str) -> App:
    with store.begin() as db:
        return apps.find_app(db, name)


def cells(result: Result) -> list[list[str]]:
    """A table's rows, without its heading."""
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()[1:]]


def test_an_app_is_made_with_its_limits(run: Run, store: Store) -> None:
    made = run("apps", "create", "shop", "--queued-jobs", "200", "--tokens-per-minute", "90000", "--lanes", "low,high")

    assert cells(made) == [["shop", "200", "-", "90,000", "-", "-", "high,low"]]
    assert "'headrace keys create shop' makes a key" in made.stderr
    app = find(store, "shop")
    assert (app.limits, app.lanes) == (AppLimits(200, None, 90_000), {Lane.HIGH, Lane.LOW})


def test_a_command_that_is_named_can_be_pasted(run: Run) -> None:
    made = run("apps", "create", "Bad Name!")
    assert "'headrace keys create 'Bad Name!'' makes a key" in made.stderr
    shown = run("apps", "show", "Bad Name!")
    assert "'headrace keys create 'Bad Name!'' makes one" in shown.stdout


def test_an_app_s_budget_is_set_shown_and_lifted(run: Run, store: Store) -> None:
    run("apps", "create", "shop", "--day-usd", "12.5", "--month-usd", "1000")
    assert find(store, "shop").limits == AppLimits(day_usd=Decimal("12.5"), month_usd=Decimal(1000))
    assert cells(run("apps", "list")) == [["shop", "-", "-", "-", "12.5", "1,000", "all"]]

    assert cells(run("apps", "limit", "shop", "--day-usd", "0", "--month-usd", "none")) == [
        ["shop", "-", "-", "-", "0", "-", "all"]
    ]
    [listed] = json.loads(run("apps", "list", "--json").stdout)
    assert (listed["day_usd"], listed["month_usd"]) == ("0", None)


def test_an_app_s_own_rate_of_calls_is_set_shown_and_lifted(run: Run, store: Store) -> None:
    assert "60,000 calls a minute" in run("apps", "create", "shop", "--calls-per-minute", "60000").stdout
    assert find(store, "shop").limits == AppLimits(calls_per_minute=60_000)
    assert "50,000 calls a minute" in run("apps", "limit", "shop", "--calls-per-minute", "50000").stdout
    assert "50,000 calls a minute" in run("apps", "show", "shop").stdout
    run("apps", "limit", "shop", "--calls-per-minute", "none")
    [listed] = json.loads(run("apps", "list", "--json").stdout)
    assert listed["calls_per_minute"] is None


def test_an_app_s_own_cache_is_set_shown_and_lifted(run: Run, store: Store) -> None:
    run("apps", "create", "shop", "--cache-s", "600")
    assert find(store, "shop").cache_s == 600
    assert "Its answers serve identical jobs for 600 s." in run("apps", "show", "shop").stdout
    run("apps", "limit", "shop", "--queued-jobs", "5")
    assert json.loads(run("apps", "show", "shop", "--json").stdout)["cache_s"] == 600
    run("apps", "limit", "shop", "--cache-s", "0")
    assert find(store, "shop").cache_s == 0, "off, also where its pool has a cache"
    run("apps", "limit", "shop", "--cache-s", "none")
    assert find(store, "shop").cache_s is None
    assert "identical jobs" not in run("apps", "show", "shop").stdout
    assert run("apps", "limit", "shop", "--cache-s", "-1").exit_code == 2


def test_an_app_s_own_bound_of_wrong_answers_is_set_shown_and_lifted(run: Run, store: Store) -> None:
    run("apps", "create", "shop", "--max-error", "0.005")
    assert find(store, "shop").max_error == 0.005
    assert "a share of 0.005 may be wrong" in run("apps", "show", "shop").stdout
    run("apps", "limit", "shop", "--max-error", "0")
    assert json.loads(run("apps", "show", "shop", "--json").stdout)["max_error"] == 0
    run("apps", "limit", "shop", "--max-error", "none")
    assert find(store, "shop").max_error is None
    assert "may be wrong" not in run("apps", "show", "shop").stdout
    assert run("apps", "limit", "shop", "--max-error", "1").exit_code == 2


def test_an_app_that_is_there_is_not_made_again_nor_changed(run: Run, store: Store) -> None:
    run("apps", "create", "shop")
    before = find(store, "shop")

    again = run("apps", "create", "shop", "--queued-jobs", "1")

    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert "There is an app 'shop' already: 'headrace apps limit' changes" in again.stderr
    assert find(store, "shop") == before


def test_a_limit_is_changed_and_the_others_stay(run: Run, store: Store) -> None:
    run("apps", "create", "shop", "--queued-jobs", "200", "--requests-per-minute", "60", "--lanes", "high")

    changed = run("apps", "limit", "shop", "--queued-jobs", "300", "--requests-per-minute", "none")

    assert cells(changed) == [["shop", "300", "-", "-", "-", "-", "high"]]
    assert find(store, "shop").limits == AppLimits(queued_jobs=300)
    assert cells(run("apps", "limit", "shop", "--lanes", "none", "--queued-jobs", "none")) == [
        ["shop", "-", "-", "-", "-", "-", "all"]
    ]
    assert (find(store, "shop").limits, find(store, "shop").lanes) == (UNLIMITED, None)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["limit", "shop"], 2, "Name a limit to change"),
        (["limit", "shop", "--queued-jobs", "0"], 2, "'--queued-jobs': '0' is neither"),
        (["limit", "shop", "--lanes", "top"], 2, "'top' is not a list of lanes like 'high,normal,low,batch'"),
        (["create", " "], 2, "an app needs a name"),
        (["limit", "nobody", "--queued-jobs", "1"], 1, "There is no app 'nobody': 'headrace apps list' shows"),
        (["show", "nobody"], 1, "There is no app 'nobody'"),
        (["webhook-secret", "nobody"], 1, "There is no app 'nobody'"),
        (["webhook-secret", "nobody", "--rotate"], 1, "There is no app 'nobody'"),
    ],
)
def test_a_mistake_is_named(run: Run, arguments: list[str], status: int, message: str) -> None:
    result = run("apps", *arguments)
    assert result.exit_code == status
    assert message in result.stderr


def test_apps_are_listed_by_name_for_people_and_for_programs(run: Run, store: Store) -> None:
    run("apps", "create", "[red]zoo", "--lanes", "batch,normal")
    run("apps", "create", "shop", "--queued-jobs", "5")

    assert [row[0] for row in cells(run("apps", "list"))] == ["[red]zoo", "shop"]
    listed = run("apps", "list", "--json")
    limits = {"queued_jobs": None, "requests_per_minute": None, "tokens_per_minute": None}
    limits |= {"calls_per_minute": None, "day_usd": None, "month_usd": None}
    caching = {"cache_s": None, "max_error": None}
    assert json.loads(listed.stdout) == [
        {
            "id": str(find(store, "[red]zoo").id),
            "name": "[red]zoo",
            **limits,
            "lanes": ["normal", "batch"],
            **caching,
        },
        {"id": str(find(store, "shop").id), "name": "shop", **limits, "queued_jobs": 5, "lanes": None, **caching},
    ]
    assert "whsec_" not in listed.stdout


def test_an_app_is_shown_with_its_keys_its_jobs_and_what_they_cost(
    run: Run, queued: Callable[..., Ticket], charge: Callable[..., None], app: App, query: Callable[..., Any]
) -> None:
    queued()
    queued()
    charge("0.25")
    for hours, reason, count in ((1, "app_jobs", 46), (2, "app_jobs", 4), (3, "depth", 3), (30, "depth", 9)):
        query(
            "INSERT INTO refusals (minute, app_id, queue, reason, jobs, tokens)"
            " VALUES (now() - make_interval(hours => :hours), :app, 'chat.normal', :reason, :count, 1)",
            hours=hours,
            app=app.id,
            reason=reason,
            count=count,
        )
    key = run("keys", "create", app.name, "--scope", "read").stdout.strip()

    shown = run("apps", "show", app.name).stdout

    assert shown.splitlines()[1].split() == ["test", "-", "-", "-", "-", "-", "all"]
    assert f"{key[:8]}…" in shown
    assert key not in shown
    assert "Last 24 hours: 2 queued; 0.250000 USD; refused: 50 app_jobs, 3 depth\n" in shown
    told: Any = json.loads(run("apps", "show", app.name, "--json").stdout)
    assert (told["name"], told["last_24_h"]) == (
        "test",
        {"jobs": {"queued": 2}, "usd": "0.250000000", "refused": {"app_jobs": 50, "depth": 3}},
    )
    assert [(each["hint"], each["scopes"], each["state"]) for each in told["keys"]] == [(key[:8], ["read"], "live")]


def test_an_app_that_did_nothing_and_has_no_key_says_so(run: Run, app: App) -> None:
    shown = run("apps", "show", app.name).stdout
    assert "It has no key: 'headrace keys create test' makes one." in shown
    assert "Last 24 hours: no jobs; 0.000000 USD" in shown


def test_a_webhook_secret_is_printed_and_replaced(run: Run, store: Store, app: App) -> None:
    assert run("apps", "webhook-secret", app.name).stdout == f"{app.webhook_secret}\n"

    result = run("apps", "webhook-secret", app.name, "--rotate")

    replaced = result.stdout.strip()
    assert replaced.startswith("whsec_")
    assert replaced != app.webhook_secret
    assert find(store, app.name).webhook_secret == replaced
    assert "The old secret of 'test' signs too until" in result.stderr
    assert overlap(store) == (app.webhook_secret, 24)


def overlap(store: Store) -> tuple[str, int]:
    """The secret before, and for how many hours it signs."""
    hours = "round(extract(epoch FROM webhook_secret_old_until - now()) / 3600)"
    with store.begin() as db:
        secret, left = db.execute(sa.text(f"SELECT webhook_secret_old, {hours} FROM apps")).one()
    return secret, int(left)


def test_a_leaked_webhook_secret_is_replaced_at_once_and_the_overlap_can_be_chosen(
    run: Run, store: Store, app: App
) -> None:
    result = run("apps", "webhook-secret", app.name, "--rotate", "--keep-old-hours", "72")
    assert overlap(store) == (app.webhook_secret, 72)
    second = result.stdout.strip()
    assert run("apps", "webhook-secret", app.name, "--rotate", "--keep-old-hours", "0").stderr == ""
    assert overlap(store) == (second, 0)
    refused = run("apps", "webhook-secret", app.name, "--keep-old-hours", "2")
    assert (refused.exit_code, "--keep-old-hours needs --rotate." in refused.stderr) == (2, True)


def test_a_confined_app_is_shown_and_released(run: Run, store: Store, app: App) -> None:
    now = sa.func.now()
    times = {"since": now, "next_at": now, "until": now + sa.text("interval '1 h'")}
    with store.begin() as db:
        db.execute(sa.insert(confinements).values(app_id=app.id, pool="chat", reason="2 of its prompts", **times))
    shown = run("apps", "show", app.name).stdout
    assert "Confined in pool 'chat' until" in shown
    assert "'headrace apps release test' ends this." in shown
    told: Any = json.loads(run("apps", "show", app.name, "--json").stdout)
    assert [(each["pool"], each["held"]) for each in told["confined"]] == [("chat", 0)]
    assert run("apps", "release", app.name).stdout == "Released in chat.\n"
    assert run("apps", "release", app.name).stdout == "It was not confined.\n"
    assert "Confined" not in run("apps", "show", app.name).stdout
