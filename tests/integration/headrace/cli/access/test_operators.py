"""`headrace operators`: accounts for the pages at /ops."""

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from headrace.cli import main
from headrace.config import Settings
from headrace.domain.operators import Role
from headrace.policies import passwords
from headrace.store import Store, operators

Run = Callable[..., Result]
PASSWORD = "correct horse battery"


@pytest.fixture
def type_in(store: Store, settings: Settings) -> Run:
    """Runs a command that reads these lines."""

    def invoke(lines: list[str], *arguments: str) -> Result:
        text = "".join(f"{line}\n" for line in lines)
        return CliRunner().invoke(main, arguments, input=text, env={"DATABASE_URL": settings.database_url})

    return invoke


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.cli.access.operators._is_at_a_terminal", lambda: True)


@pytest.mark.usefixtures("at_a_terminal")
def test_a_password_is_typed_twice_at_a_terminal(type_in: Run, store: Store) -> None:
    result = type_in([PASSWORD, "another password"], "operators", "create", "ada", "--role", "admin")
    assert result.exit_code == 1
    assert "do not match" in result.output
    with store.begin() as db:
        assert operators.list_all(db) == []
    assert type_in([PASSWORD, PASSWORD], "operators", "create", "ada", "--role", "admin").exit_code == 0


def test_a_piped_password_is_one_line_and_is_stored_as_a_hash(type_in: Run, store: Store) -> None:
    result = type_in([PASSWORD], "operators", "create", "ada", "--role", "admin")
    assert result.exit_code == 0, result.output
    assert "Password" not in result.output
    assert PASSWORD not in result.output
    with store.begin() as db:
        operator = operators.named(db, "ada")
    assert operator is not None
    assert (operator.role, PASSWORD in operator.password_hash) == (Role.ADMIN, False)
    assert passwords.matches(PASSWORD, operator.password_hash)


def test_a_generated_password_is_printed_once_and_works(run: Run, store: Store) -> None:
    password = run("operators", "create", "guest", "--role", "viewer", "--generate").stdout.strip()
    assert len(password) == 24
    with store.begin() as db:
        operator = operators.named(db, "guest")
    assert operator is not None
    assert passwords.matches(password, operator.password_hash)
    assert password not in run("operators", "list", "--json").output


def test_a_short_password_is_refused(type_in: Run, store: Store) -> None:
    result = type_in(["short"], "operators", "create", "ada", "--role", "admin")
    assert result.exit_code == 1
    assert "12 to 200 characters" in result.output
    with store.begin() as db:
        assert operators.list_all(db) == []


@pytest.mark.parametrize(
    "arguments", [("create", "ada"), ("create", "a b", "--role", "admin"), ("create", "", "--role", "x")]
)
def test_an_account_needs_a_name_and_a_role(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("operators", *arguments, "--generate").exit_code == 2


def test_a_name_is_taken_once(run: Run) -> None:
    assert run("operators", "create", "ada", "--role", "admin", "--generate").exit_code == 0
    again = run("operators", "create", "ada", "--role", "viewer", "--generate")
    assert again.exit_code == 1
    assert "There is an operator 'ada' already" in again.output


def test_passwords_and_roles_change_and_accounts_are_deleted(run: Run, store: Store) -> None:
    run("operators", "create", "ada", "--role", "admin", "--generate")
    new = json.loads(run("operators", "password", "ada", "--generate", "--json").stdout)["password"]
    assert run("operators", "role", "ada", "--role", "viewer").exit_code == 0
    with store.begin() as db:
        operator = operators.named(db, "ada")
    assert operator is not None
    assert (operator.role, passwords.matches(new, operator.password_hash)) == (Role.VIEWER, True)
    assert "viewer" in run("operators", "list").output

    assert run("operators", "delete", "ada").exit_code == 0
    assert "There are no operators" in run("operators", "list").output


@pytest.mark.parametrize("arguments", [("delete",), ("password", "--generate"), ("role", "--role", "viewer")])
def test_an_unknown_name_is_an_error(run: Run, arguments: tuple[str, ...]) -> None:
    result = run("operators", arguments[0], "nobody", *arguments[1:])
    assert result.exit_code == 1
    assert "There is no operator 'nobody'" in result.output
