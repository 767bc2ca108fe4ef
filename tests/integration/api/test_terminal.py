"""The terminal's commands against a real HTTP server, and keys against a real Postgres."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headrace.cli import main
from headrace.config import Settings
from headrace.jobs import parse_id

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

    def invoke(*arguments: str, stdin: str | None = None, **changes: str) -> Result:
        return CliRunner().invoke(main, arguments, input=stdin, env={**environment, **changes})

    return invoke


def test_a_submit_prints_where_the_job_stands(run: Run) -> None:
    result = run("submit", "Hi", "--lane", "high", "--max-tokens", "5")
    assert result.exit_code == 0
    assert re.match(r"job_\w{32}  chat\.high  position 1 of 1  no worker is alive\n", result.stdout)


def test_a_prompt_can_come_through_a_pipe(run: Run, finish: Any) -> None:
    job_id = run("submit", "-", stdin="from a pipe\n").stdout.split()[0]
    finish(parse_id(job_id))

    result = run("get", job_id)

    assert result.stdout == "Because of Rayleigh scattering.\n"
    assert "simulator" in result.stderr
    assert "0.000001230 USD" in result.stderr
    assert json.loads(run("get", job_id, "--json").stdout)["status"] == "succeeded"


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
        (["queues"], {"HEADRACE_URL": "nonsense"}, "Error: No answer from nonsense"),
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


def test_a_key_is_made_listed_and_revoked(run: Run) -> None:
    key = run("keys", "create", "new-app", "--days", "3").stdout.strip()
    assert run("queues", HEADRACE_API_KEY=key).exit_code == 0

    listed = run("keys", "list", "new-app").stdout
    key_id = listed.split()[0]

    assert key not in listed
    assert "expires" in listed
    assert run("keys", "revoke", key_id).exit_code == 0
    assert "revoked" in run("keys", "list", "new-app").stdout
    assert run("keys", "revoke", "00000000-0000-0000-0000-000000000000").exit_code == 1
