"""`headrace keys`: what is shown once, what is shown after, and how a key ends."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import Result

from headrace.config import Settings
from headrace.domain.apps import App, Scope
from headrace.errors import Unauthenticated
from headrace.store import Store, apps, keys

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def shop_and_zoo(store: Store) -> None:
    with store.begin() as db:
        for name in ("shop", "zoo"):
            apps.create(db, name, {})


@pytest.fixture
def app_of(store: Store, settings: Settings) -> Callable[[str], App | None]:
    """The app that a key opens the door to; None when it opens none."""

    def authenticate(key: str) -> App | None:
        with store.begin() as db:
            try:
                return keys.authenticate(db, key, settings.pepper.get_secret_value())
            except Unauthenticated:
                return None

    return authenticate


def made(run: Run, *arguments: str) -> str:
    """The key that a command printed, alone on standard output."""
    result = run("keys", *arguments)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"hr-[\w-]{49}\n", result.stdout)
    return result.stdout.strip()


def listed(run: Run, *arguments: str) -> list[Any]:
    listed: list[Any] = json.loads(run("keys", "list", "--json", *arguments).stdout)
    return listed


def hours_until(text: str) -> float:
    return (datetime.fromisoformat(text) - datetime.now(UTC)) / timedelta(hours=1)


def test_a_key_may_do_everything_forever_unless_it_is_said(run: Run, app_of: Any) -> None:
    key, reader = made(run, "create", "shop"), made(run, "create", "shop", "--scope", "read", "--days", "3")

    assert app_of(key).scopes == set(Scope)
    assert app_of(reader).scopes == {Scope.READ}
    first, second = listed(run)
    assert (first["app"], first["hint"], first["expires_at"]) == ("shop", key[:8], None)
    assert second["scopes"] == ["read"]
    assert hours_until(second["expires_at"]) == pytest.approx(72, abs=0.1)


def test_an_app_that_is_not_there_gets_no_key_and_is_not_made(run: Run, store: Store) -> None:
    refused = run("keys", "create", "my shpo")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == (
        "Error: There is no app 'my shpo': 'headrace apps list' shows those there are, "
        "'headrace apps create 'my shpo'' makes it.\n"
    )
    with store.begin() as db:
        assert [app.name for app in apps.list_apps(db)] == ["shop", "zoo"]


def test_a_key_is_all_that_is_told(run: Run) -> None:
    assert run("keys", "create", "shop").stderr == ""


@pytest.mark.parametrize("pepper", [None, "development"])
def test_no_key_is_made_under_the_pepper_that_everyone_knows(run: Run, pepper: str | None) -> None:
    hint = made(run, "create", "shop")[:8]
    for words in (("create", "shop"), ("rotate", hint)):
        refused = run("keys", *words, HEADRACE_PEPPER=pepper)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "HEADRACE_PEPPER is not set" in refused.stderr


def test_the_keys_of_one_app_or_of_all_are_listed_without_any_key(run: Run) -> None:
    shop, zoo = made(run, "create", "shop"), made(run, "create", "zoo", "--days", "3")
    run("keys", "revoke", shop[:8])

    everything = run("keys", "list").stdout.splitlines()[1:]

    assert [line.split()[:3] for line in everything] == [
        [f"{shop[:8]}…", "shop", "read,submit"],
        [f"{zoo[:8]}…", "zoo", "read,submit"],
    ]
    assert ["revoked" in line for line in everything] == [True, False]
    assert [key["app"] for key in listed(run, "zoo")] == ["zoo"]
    assert not any(key in run("keys", "list", *options).output for key in (shop, zoo) for options in ((), ("--json",)))
    assert "There is no app 'nobody'" in run("keys", "list", "nobody").stderr


def test_a_rotated_key_goes_on_beside_the_new_one_for_a_while(run: Run, app_of: Any) -> None:
    old = made(run, "create", "shop", "--scope", "submit")

    rotated = run("keys", "rotate", old[:8], "--keep-old-hours", "2")

    new = rotated.stdout.strip()
    assert new != old
    assert app_of(new).scopes == app_of(old).scopes == {Scope.SUBMIT}
    assert f"The old key {old[:8]}… of 'shop' works until" in rotated.stderr
    [before, after] = listed(run)
    assert hours_until(before["expires_at"]) == pytest.approx(2, abs=0.1)
    assert after["expires_at"] is None


def test_a_rotation_never_lengthens_the_old_keys_life_and_asks_for_the_new_ones(run: Run) -> None:
    old = made(run, "create", "shop", "--days", "3")
    run("keys", "expire", old[:8], "--hours", "1")

    unsaid = run("keys", "rotate", old[:8])
    run("keys", "rotate", old[:8], "--days", "30")

    assert unsaid.exit_code == 1
    assert "say with --days how long the new one lives" in unsaid.stderr
    [before, after] = listed(run)
    assert hours_until(before["expires_at"]) == pytest.approx(1, abs=0.1)
    assert hours_until(after["expires_at"]) == pytest.approx(720, abs=0.1)


def test_an_expired_key_opens_nothing_and_stays_so(run: Run, app_of: Any, end: Callable[[str], None]) -> None:
    key = made(run, "create", "shop")
    end(key)

    assert app_of(key) is None
    assert [each["state"] for each in listed(run)] == ["expired"]
    for command in (("expire", key[:8], "--hours", "1"), ("rotate", key[:8], "--days", "1")):
        refused = run("keys", *command)
        assert refused.exit_code == 1
        assert f"{key[:8]}… is expired, for good: 'headrace keys create shop' makes a new one." in refused.stderr
    assert app_of(key) is None
    assert len(listed(run)) == 1


@pytest.fixture
def end(store: Store) -> Callable[[str], None]:
    """Lets a key's time be over."""

    def expire(key: str) -> None:
        with store.begin() as db:
            keys.expire(db, keys.find(db, key), timedelta(seconds=-1))

    return expire


def test_a_revoked_key_opens_nothing_and_can_be_revoked_again(run: Run, app_of: Any) -> None:
    key = made(run, "create", "shop")

    assert run("keys", "revoke", key[:8]).stdout == f"Revoked the key {key[:8]}… of 'shop'.\n"

    assert app_of(key) is None
    [once] = listed(run)
    assert run("keys", "revoke", key[:8]).exit_code == 0
    assert listed(run) == [once]
    assert run("keys", "expire", key[:8], "--hours", "1").exit_code == 1
    assert app_of(key) is None


def test_a_key_goes_by_its_hint_itself_or_enough_of_its_id(run: Run) -> None:
    key = made(run, "create", "shop")
    made(run, "create", "zoo")
    key_id = listed(run)[0]["id"]
    for name in (key[:8], key, key_id, key_id.upper(), key_id.replace("-", ""), key_id[:-1]):
        assert "Revoked" in run("keys", "revoke", name).stdout, name


def test_a_name_that_means_several_keys_or_none_ends_none(run: Run) -> None:
    made(run, "create", "shop")
    made(run, "create", "zoo")
    ids = [each["id"] for each in listed(run)]

    several = run("keys", "revoke", ids[0][:4])

    assert (several.exit_code, several.stderr.count("\n")) == (1, 1)
    assert f"means 2 API keys: give the whole id of one ({ids[0]}, {ids[1]})" in several.stderr
    for nothing in ("hr-", "hr-abcde", "x", "%", "____", "0", ids[0] + "0", "ffff"):
        refused = run("keys", "revoke", nothing)
        assert f"There is no API key '{nothing}': 'headrace keys list' shows" in refused.stderr
    assert {each["state"] for each in listed(run)} == {"live"}


def test_a_whole_key_that_is_not_there_is_not_repeated(run: Run) -> None:
    key = "hr-" + "a" * 43
    assert key not in run("keys", "revoke", key).output


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", " "),
        ("create", "shop", "--days", "0"),
        ("create", "shop", "--days", "99999999"),
        ("create", "shop", "--scope", "all"),
        ("rotate", "hr-abcde", "--keep-old-hours", "-1"),
        ("expire", "hr-abcde"),
        ("expire", "hr-abcde", "--hours", "99999999999"),
    ],
)
def test_a_mistake_makes_no_key(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("keys", *arguments).exit_code == 2
    assert listed(run) == []


def test_what_changes_apps_keys_and_budgets_tells_its_outcome_as_json(run: Run) -> None:
    def told(*words: str) -> dict[str, Any]:
        done = run(*words, "--json")
        assert (done.exit_code, done.stderr if words[0] == "keys" else "") == (0, ""), done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert told("apps", "create", "json")["name"] == "json"
    assert told("apps", "limit", "json", "--queued-jobs", "7")["queued_jobs"] == 7
    secret = told("apps", "webhook-secret", "json")["webhook_secret"]
    rotated = told("apps", "webhook-secret", "json", "--rotate")
    assert rotated["webhook_secret"] != secret
    assert rotated["old_secret_signs_until"]
    made = told("keys", "create", "json", "--days", "3")
    assert made["key"].startswith(made["hint"])
    new = told("keys", "rotate", made["id"], "--days", "5")
    assert new["old_key_works_until"] < new["expires_at"]
    assert told("keys", "expire", new["id"], "--hours", "2")["state"] == "live"
    assert told("keys", "revoke", new["id"])["state"] == "revoked"
    assert told("budgets", "set", "--day-usd", "5")["source"] == "stored"
    assert told("budgets", "unset") == {"day_usd": None, "month_usd": None, "source": "settings", "was_stored": True}
