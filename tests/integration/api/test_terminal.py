"""The terminal's commands against a real HTTP server, and keys against a real Postgres."""

import json
import re
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from pydantic import SecretStr

from headrace import connections
from headrace.cli import main
from headrace.cli.client import Api, TryLater
from headrace.config import Settings
from headrace.domain.apps import App, Changes
from headrace.domain.ids import parse_id
from headrace.stack.state_folder import StackReport, persistent_secret
from headrace.store import Store, apps, keys
from headrace.tables import job_texts, jobs
from tests.integration.terminals import Terminal

Run = Callable[..., Result]


@pytest.fixture
def run(base_url: str, key: str, settings: Settings) -> Run:
    """Runs `headrace` with its settings in the environment."""
    environment = {
        "HEADRACE_URL": base_url,
        "HEADRACE_API_KEY": key,
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
    }

    def invoke(*arguments: str, stdin: str | bytes | None = None, **changes: str | None) -> Result:
        return CliRunner().invoke(main, arguments, input=stdin, env={**environment, **changes})

    return invoke


def test_a_submit_prints_where_the_job_stands(run: Run) -> None:
    result = run("submit", "Hi", "--lane", "high", "--max-tokens", "5")
    assert result.exit_code == 0
    assert re.match(r"job_\w{32}  chat\.high  position 1 of 1  no worker serves its pool\n", result.stdout)


def test_a_submit_says_how_to_answer(run: Run, store: Store) -> None:
    assert run("submit", "Hi", "--temperature", "0.5", "--reasoning-effort", "low").exit_code == 0
    with store.begin() as db:
        sampling = db.scalar(sa.select(job_texts.c.sampling))
    assert sampling == {"max_tokens": 1024, "temperature": 0.5, "reasoning_effort": "low"}


def test_a_prompt_can_come_through_a_pipe(run: Run, finish: Any) -> None:
    job_id = run("submit", "-", stdin="from a pipe\n").stdout.split()[0]
    finish(parse_id(job_id))

    result = run("get", job_id)

    assert result.stdout == "Because of Rayleigh scattering.\n"
    assert "simulator" in result.stderr
    assert "0.000001230 USD" in result.stderr
    assert json.loads(run("get", job_id, "--json").stdout)["status"] == "succeeded"


#: Sets the window's title, clears the screen, and begins a command with one character of eight bits.
ESCAPES = "\x1b]0;mine\x07 \x1b[2J \x9b2J"


def test_terminal_escapes_of_users_do_not_reach_an_operators_terminal(
    run: Run, finish: Any, store: Store, base_url: str, key: str, settings: Settings
) -> None:
    job_id = run("submit", "-", stdin=f"A prompt {ESCAPES}").stdout.split()[0]
    finish(parse_id(job_id))
    with store.begin() as db:
        db.execute(sa.update(job_texts).values(answer=f"Its answer {ESCAPES}"))
        db.execute(sa.update(jobs).values(model_requested=f"chat{ESCAPES}"))
    servers = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    for arguments in (["get", job_id], ["jobs", "show", job_id, "--text"], ["get", f"{ESCAPES}{job_id}"]):
        terminal = Terminal(arguments, {"HEADRACE_URL": base_url, "HEADRACE_API_KEY": key, **servers})
        with closing(terminal):
            terminal.end()
            shown = terminal.text
        assert not [each for each in ("\x1b]", "\x07", "\x1b[2J", "\x9b") if each in shown], repr(shown)
        assert "\u241b]0;mine\u2407" in shown
    assert run("get", job_id).stdout == f"Its answer {ESCAPES}\n", "a pipe gets the text as it is"
    assert json.loads(run("get", job_id, "--json").stdout)["text"] == f"Its answer {ESCAPES}"
    assert "\x9b" not in run("get", job_id, "--json").stdout


def test_a_wait_prints_the_answer_alone_to_standard_output(run: Run, finish: Any, redis: Any) -> None:
    results: list[Result] = []
    waiting = threading.Thread(target=lambda: results.append(run("submit", "Hi", "--wait")))
    waiting.start()
    while not (messages := redis.lrange("{headrace}:chat.normal", 0, -1)):
        threading.Event().wait(0.01)
    job_id = re.search(r"job_\w{32}", messages[0])
    assert job_id
    finish(parse_id(job_id.group()))

    waiting.join(20)

    assert not waiting.is_alive()
    assert (results[0].exit_code, results[0].stdout) == (0, "Because of Rayleigh scattering.\n")


def test_get_waits_for_the_end_if_it_is_to(run: Run, finish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = run("submit", "Hi").stdout.split()[0]
    call, polls = Api.call, []

    def finishing(api: Api, method: str, path: str, **arguments: Any) -> Any:
        polls.append(call(api, method, path, params={"wait": 0}))
        if len(polls) == 1:
            finish(parse_id(job_id))
        return polls[-1]

    monkeypatch.setattr(Api, "call", finishing)
    result = run("get", job_id, "--wait")

    assert (result.exit_code, result.stdout) == (0, "Because of Rayleigh scattering.\n")
    assert [each["status"] for each in polls] == ["queued", "succeeded"]


def test_who_stops_waiting_is_told_the_id_of_the_job_that_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Api.call

    def interrupted(api: Api, method: str, path: str, **arguments: Any) -> Any:
        if method == "GET":
            raise KeyboardInterrupt
        return call(api, method, path, **arguments)

    monkeypatch.setattr(Api, "call", interrupted)
    stopped = run("submit", "Hi", "--wait")
    monkeypatch.undo()

    assert stopped.exit_code == 1
    told = re.search(r"The job goes on: 'headrace get (job_\w{32}) --wait' waits for it again", stopped.stderr)
    assert told
    assert "queued" in run("get", told.group(1)).stderr


def test_a_cancel_and_the_queues_show_what_became_of_it(run: Run) -> None:
    job_id = run("submit", "Hi").stdout.split()[0]
    assert re.search(r"chat\.normal +1 +500", run("queues").stdout)
    assert "cancelled" in run("cancel", job_id).stdout
    assert re.search(r"chat\.normal +0 +500", run("queues").stdout)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["submit", ""], {}, "Error: Invalid 'prompt': it must not be empty.\n"),
        (["get", "job_1"], {}, "Error: No job with id 'job_1'.\n"),
        (["queues"], {"HEADRACE_API_KEY": "hr-wrong"}, "Error: This API key is not valid"),
        (["queues"], {"HEADRACE_URL": "http://127.0.0.1:1"}, "Error: No answer from http://127.0.0.1:1"),
        (["queues"], {"HEADRACE_URL": "nonsense"}, "Error: HEADRACE_URL must begin with http:// or https://"),
        (["queues"], {"HEADRACE_URL": "http://[::"}, "Error: HEADRACE_URL 'http://[::' is not a URL"),
        (["queues"], {"HEADRACE_API_KEY": "hr-\u00e9"}, "Error: HEADRACE_API_KEY is not an API key of Headrace"),
        (["queues"], {"HEADRACE_CONFIG": "/nowhere.toml"}, "Error: HEADRACE_CONFIG names /nowhere.toml"),
        (["get", "../../healthz"], {}, "Error: No job with id '../../healthz'.\n"),
        (["cancel", "job_1?x"], {}, "Error: No job with id 'job_1?x'.\n"),
        (["submit", "Hi", "--max-wait", "nan"], {}, "Error: This cannot be sent as JSON"),
        (["keys", "list"], {"DATABASE_URL": "mysql://secret@host/x"}, "Error: DATABASE_URL must be like postgresql://"),
        (["keys", "list"], {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}, "Error: Postgres does not answer"),
    ],
)
def test_an_error_is_one_line_and_status_1(
    run: Run, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    result = run(*arguments, **environment)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_a_key_is_made_listed_and_revoked(run: Run, settings: Settings) -> None:
    assert run("apps", "create", "new-app").exit_code == 0
    pepper = settings.pepper.get_secret_value()
    key = run("keys", "create", "new-app", "--days", "3", HEADRACE_PEPPER=pepper).stdout.strip()
    assert run("queues", HEADRACE_API_KEY=key).exit_code == 0

    listed = run("keys", "list", "new-app").stdout
    hint = listed.splitlines()[1].split()[0]

    assert key not in listed
    assert key.startswith(hint.removesuffix("…"))
    assert run("keys", "revoke", hint).exit_code == 0
    assert "revoked" in run("keys", "list", "new-app").stdout
    assert run("keys", "revoke", "00000000-0000-0000-0000-000000000000").exit_code == 1


def test_input_that_is_not_text_is_refused_in_one_line(run: Run) -> None:
    result = run("submit", "-", stdin=b"\xff\xfe")
    assert (result.exit_code, result.stderr) == (1, "Error: Standard input is not UTF-8 text: byte 0 is not.\n")


def test_a_postgres_that_does_not_answer_comes_with_what_to_do(run: Run) -> None:
    result = run("apps", "list", DATABASE_URL="postgresql://x@127.0.0.1:1/x")
    assert result.stderr.endswith(". Start the stack with 'headrace up', or set DATABASE_URL.\n")


def test_without_a_stack_in_the_folder_a_command_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = connections.postgres, {"database_url": "postgresql://x@127.0.0.1:1/x"}
    monkeypatch.setattr(connections, "postgres", lambda used, **how: real(used.model_copy(update=away), **how))
    nowhere: dict[str, str | None] = {"HEADRACE_STATE": str(tmp_path), "DATABASE_URL": None}
    for command in ("status", "apps list"):
        result = run(*command.split(), **nowhere)
        told = f". No stack runs in {tmp_path}: start it with 'headrace up', or set DATABASE_URL.\n"
        assert (result.exit_code, result.stderr.endswith(told)) == (1, True), result.stderr
    result = run("queues", **nowhere, HEADRACE_URL=None, HEADRACE_API_KEY=None)
    assert f"No stack runs in {tmp_path}, and no API key is set" in result.stderr


def test_a_key_made_beside_a_running_stack_opens_its_door(run: Run, settings: Settings, tmp_path: Path) -> None:
    persistent_secret(tmp_path / "pepper")
    servers = (settings.database_url, settings.redis_url)
    stack = StackReport("", "", "", "", "", *servers, "simulator", "m", None, {}, {}, {})
    stack.write(tmp_path / "stack.json")

    beside: dict[str, str | None] = {"HEADRACE_STATE": str(tmp_path), "DATABASE_URL": None}
    assert run("apps", "create", "neighbour", **beside).exit_code == 0
    made = run("keys", "create", "neighbour", **beside)

    assert made.exit_code == 0, made.stderr
    assert "HEADRACE_PEPPER" not in made.stderr
    store = Store(connections.postgres(settings))
    with store.begin() as db:
        assert keys.authenticate(db, made.stdout.strip(), (tmp_path / "pepper").read_text()).name == "neighbour"
    store.close()


def test_a_damaged_report_of_the_stack_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{bad")
    result = run("queues", HEADRACE_STATE=str(tmp_path), HEADRACE_API_KEY=None, HEADRACE_URL=None)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "is damaged" in result.stderr


def test_a_key_alone_is_sent_to_no_assumed_address(run: Run, tmp_path: Path) -> None:
    result = run("queues", HEADRACE_STATE=str(tmp_path), HEADRACE_URL=None)
    assert result.exit_code == 1
    told = f"Error: No stack runs in {tmp_path}, and HEADRACE_API_KEY is set without HEADRACE_URL: start one with "
    assert result.stderr.startswith(told)


def test_a_key_alone_is_one_of_the_stack_that_runs_here(
    run: Run, settings: Settings, tmp_path: Path, base_url: str
) -> None:
    servers = (settings.database_url, settings.redis_url)
    StackReport(base_url, "not-a-key", "", "", "", *servers, "simulator", "m", None, {}, {}, {}).write(
        tmp_path / "stack.json"
    )
    with_key = run("queues", HEADRACE_STATE=str(tmp_path), HEADRACE_URL=None)
    without = run("queues", HEADRACE_STATE=str(tmp_path), HEADRACE_URL=None, HEADRACE_API_KEY=None)
    assert (with_key.exit_code, without.exit_code) == (0, 1)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"], ids=["bare", "slash", "v1", "v1-slash"])
def test_the_address_has_both_spellings(run: Run, base_url: str, end: str) -> None:
    assert run("queues", HEADRACE_URL=f"{base_url}{end}").exit_code == 0


def test_a_refusal_for_now_says_when_the_same_request_may_succeed(
    base_url: str, key: str, settings: Settings, app: App, store: Store
) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, Changes(requests_per_minute=1))
    with closing(Api(settings.model_copy(update={"url": base_url, "api_key": SecretStr(key)}))) as api:
        api.call("POST", "/v1/jobs", json={"prompt": "Hi"})
        with pytest.raises(TryLater, match="minute") as refused:
            api.call("POST", "/v1/jobs", json={"prompt": "Hi"})
    assert refused.value.after_s >= 1
