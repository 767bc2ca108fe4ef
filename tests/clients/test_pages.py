"""What README.md and pages of docs give to copy, as it stands, against a whole stack."""

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import psycopg
import pytest
from openai import OpenAI

from headrace.config import PROJECT_ROOT
from headrace.domain.ids import new_id
from headrace.policies.webhooks import APP_EVENTS, new_secret, payload, signed_headers
from headrace.stack.loopback import Receiver
from headrace.stack.ports import free_port
from headrace.stack.stack import Stack
from plugins.batches.web import WEBHOOKS
from tests.clients.environments import CHECKOUT, inherited
from tests.clients.snippets import LANGUAGES, Snippet, checked_types, command, environment, run, snippets
from tests.waiting import until

BEGIN, NO_ROOM = "Before you begin", "When there is no room: 429"
#: A worker may be fast.
OPEN = "(queued|in_progress|completed)"
#: The receiver of the guide.
HOOK = "https://shop.example/hooks"
#: By chapter of the guide: what its snippets print.
SAYS = {
    "Ask, and wait for the answer": r"\[simulated\] ",
    "Submit now, fetch later": r"(?=.*completed)(?=.*\[simulated\] )",
    "Stream, and come back to a stream": r"\[simulated\] ",
    "Be called when it is done": rf"(?=.*resp_)(?=.*{OPEN})",
    NO_ROOM: OPEN,
    "Send it twice, get it once": r'^("id":")?(resp_\w{32})\n("id":")?\2\n$',
    "Get JSON of a schema": r"(?=.*country)(?=.*capital)",
    "Let the model call your functions": r"\[simulated\] |function_call.*weather",
    "Many prompts: a batch": r"(?=.*batch_)(?=.*validating)",
}
SNIPPETS = [each for each in snippets("guide.md") if each.heading in SAYS and each.language in LANGUAGES]
RECEIVERS = {each.language: each.text for each in snippets("webhooks.md") if each.heading == "A receiver"}
(BATCH,) = [
    each.text
    for each in snippets("batches.md")
    if each.heading.startswith("From the file") and each.language == "typescript"
]
#: The address and the key that pages without variables have.
URL, KEY = "http://127.0.0.1:8000", "hr-..."
FIRST = {each.language: each.text for each in snippets("guide.md") if each.heading == BEGIN}


class Account(NamedTuple):
    """An app of the stack."""

    key: str
    webhook_secret: str


@pytest.fixture(scope="session")
def account(stack: Stack) -> Callable[..., Account]:
    """Makes an app of this name, with these options of `headrace apps create`; once."""
    known: dict[str, Account] = {}

    def headrace(*words: str) -> str:
        env = {**inherited(), "HEADRACE_STATE": str(stack.state_dir)}
        program = str(CHECKOUT.venv / "bin" / "headrace")
        return subprocess.run([program, *words], env=env, capture_output=True, text=True, check=True).stdout

    def make(name: str, *limits: str) -> Account:
        if name not in known:
            headrace("apps", "create", name, *limits)
            key = json.loads(headrace("keys", "create", name, "--json"))["key"]
            known[name] = Account(key, headrace("apps", "webhook-secret", name).strip())
        return known[name]

    return make


@pytest.fixture
def says(stack: Stack, tmp_path: Path) -> Callable[..., str]:
    """What a snippet prints. `key`: of the app that runs it."""

    def of(snippet: Snippet, key: str, hook: str = HOOK) -> str:
        env = {"OPENAI_BASE_URL": f"{stack.report.url}/v1", "OPENAI_API_KEY": key}
        lines = FIRST[snippet.language]
        for name, value in env.items():
            lines = re.sub(rf"{name}=\S+", f"{name}={value}", lines)
        (tmp_path / "lines.jsonl").write_text(FILE, encoding="utf-8")
        return run(snippet.language, f"{lines}{snippet.text.replace(HOOK, hook)}", tmp_path, env)

    return of


FILE = next(each.text for each in snippets("guide.md") if each.language == "json")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def test_each_chapter_has_each_language() -> None:
    assert [(each.heading, each.language) for each in SNIPPETS] == [
        (heading, language) for heading in SAYS for language in LANGUAGES
    ]
    assert FIRST.keys() == set(LANGUAGES)


def test_typescript_finds_no_fault(tmp_path: Path) -> None:
    texts = [each.text for each in SNIPPETS if each.language == "typescript"]
    programs = {f"program_{number}": FIRST["typescript"] + text for number, text in enumerate(texts)}
    programs |= {"receiver": RECEIVERS["typescript"], "batches": BATCH}
    assert not checked_types(programs, tmp_path)
    (tmp_path / "node_modules").unlink()
    assert "TS2322" in checked_types({"wrong": "const number: number = 'one'; export {};"}, tmp_path)


def test_snippets_that_show_an_answer_ask_for_the_likeliest_one() -> None:
    """Otherwise the demo's small model answers with gibberish at times."""
    chapters = [heading for heading, said in SAYS.items() if "simulated" in said or "country" in said]
    assert len(chapters) == 5
    showing = [each.text for each in SNIPPETS if each.heading in chapters]
    showing += [
        each.text for each in snippets("README.md") if each.heading == "Ten lines of SDK" and "capital" in each.text
    ]
    assert [text for text in (*showing, *FILE.splitlines()) if "temperature" not in text] == []


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda each: f"{each.heading}-{each.language}")
def test_a_snippet_says_what_it_is_to_say(
    snippet: Snippet, account: Callable[..., Account], says: Callable[..., str], receiver: Receiver
) -> None:
    app = account(f"guide-{snippet.language}")
    said = says(snippet, app.key, receiver.url)
    assert re.search(SAYS[snippet.heading], said, re.DOTALL), said
    if "webhook" in snippet.text:
        (webhook,) = receiver.wait_for(1, 30)
        event = OpenAI(api_key="unused").webhooks.unwrap(webhook.body, webhook.headers, secret=app.webhook_secret)
        assert event.type == "response.completed"
        assert event.data.id in said


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_a_stream_that_is_resumed_has_the_whole_text(
    language: str, stack: Stack, account: Callable[..., Account], says: Callable[..., str]
) -> None:
    (snippet,) = [each for each in SNIPPETS if each.heading.startswith("Stream") and each.language == language]
    app = account(f"streams-{language}")
    said = says(snippet, app.key)
    with httpx2.Client(base_url=stack.report.url, headers={"Authorization": f"Bearer {app.key}"}) as http:
        (job,) = http.get("/v1/jobs").json()["data"]
        assert http.get(f"/v1/jobs/{job['id']}", params={"wait": 30}).json()["text"] == said


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_a_refusal_is_caught(language: str, account: Callable[..., Account], says: Callable[..., str]) -> None:
    (snippet,) = [each for each in SNIPPETS if each.heading == NO_ROOM and each.language == language]
    assert says(snippet, account("limited", "--tokens-per-minute", "1").key).startswith("refused: rate_limit_exceeded")


def test_the_batch_in_typescript_prints_an_answer(
    stack: Stack, account: Callable[..., Account], tmp_path: Path
) -> None:
    (tmp_path / "lines.jsonl").write_text(FILE, encoding="utf-8")
    program = BATCH
    for there, here in ((URL, stack.report.url), (KEY, account("batches").key), ("10_000", "100")):
        assert there in program
        program = program.replace(there, here)
    assert run("typescript", program, tmp_path, {}).startswith("completed [simulated] ")


#: A line that its endpoint refuses.
REFUSED = '{"custom_id": "row-bad", "method": "POST", "url": "/v1/chat/completions", "body": {"max_tokens": -1}}\n'


def test_the_curl_of_the_batches_page_runs_a_batch_reads_it_and_retries_it(
    stack: Stack, account: Callable[..., Account], tmp_path: Path
) -> None:
    blocks = [each.text for each in snippets("batches.md") if each.language == "sh" and "curl" in each.text]
    assert len(blocks) == 2
    (tmp_path / "lines.jsonl").write_text(f"{FILE.rstrip()}\n{REFUSED}", encoding="utf-8")
    env = {"URL": stack.report.url, "KEY": account("batches-sh").key}
    said = run("sh", "".join(blocks).replace("sleep 10", "sleep 0.2"), tmp_path, env)
    assert '"status": "completed"' in said
    assert '"failed": 1' in said
    rows = [line for line in said.splitlines() if "\t[simulated] " in line]
    assert len(rows) == len(FILE.splitlines()), said
    results, retried = [line for line in said.splitlines() if '"row-bad"' in line], said.splitlines()[-1]
    assert results
    assert json.loads(retried)["status"] == "validating", retried


@pytest.fixture
def terminal(stack: Stack, account: Callable[..., Account], tmp_path: Path) -> Callable[..., str]:
    """What the lines of a block of docs/terminal.md print, without their comments. Args: names: in place of words."""
    shell = {"HEADRACE_URL": stack.report.url, "HEADRACE_API_KEY": account("terminal").key}

    def of(block: str, **names: str) -> str:
        words = {"bin/headrace": str(CHECKOUT.venv / "bin" / "headrace"), **names}
        lines = [re.sub(r"  +#.*", "", line) for line in block.splitlines() if not line.startswith("export ")]
        text = "\n".join(lines)
        for there, here in words.items():
            text = text.replace(there, here)
        return run("sh", text, tmp_path, shell)

    return of


def terminal_block(begin: str) -> str:
    """The block of docs/terminal.md that has this text."""
    (found,) = [each for each in terminal_page() if begin in each]
    return found


def terminal_page() -> list[str]:
    path = PROJECT_ROOT / "docs" / "terminal.md"
    return re.findall(r"^```\w+\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_terminal_page_submit_and_read_jobs(terminal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(terminal_block("What is a headrace?"), encoding="utf-8")
    made = terminal("bin/headrace submit Hello --lane batch").split()[0]
    # Without a terminal and a repository.
    block = terminal_block("git log").replace(" --watch", "").replace("git log -3 --patch", "echo Hello")
    said = terminal(re.sub(r"\bID\b", made, block))
    assert said.count("[simulated] ") >= 3, said
    assert "chat.normal" in said
    assert len(re.findall(r"^\d\t", terminal(terminal_block("jq -r 'select")), re.MULTILINE)) == 2


def test_the_commands_of_the_terminal_page_run_a_batch(terminal: Callable[..., str], tmp_path: Path) -> None:
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/responses", "body": body}
        for name, body in {"row-1": {"input": "Hi"}, "row-bad": {"max_output_tokens": -1}}.items()
    ]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    first, *block = terminal_block("bin/headrace batch submit").splitlines()
    batch_id = terminal(first).strip()
    # The status of `watch` is 1: a line has no answer.
    rest = [f"{line.partition('#')[0]} || [ $? = 1 ]" if " watch " in line else line for line in block]
    said = terminal("\n".join(rest), **{"batch_0197…": batch_id})
    assert "row-1\t[simulated] " in said, said
    assert said.count("batch_") > 2


def test_the_lines_of_the_readme_answer(stack: Stack, account: Callable[..., Account], tmp_path: Path) -> None:
    blocks = [each for each in snippets("README.md") if each.heading == "Ten lines of SDK"]
    assert [each.language for each in blocks] == ["python", "sh"]
    key = account("readme").key
    (tmp_path / "try.py").write_text(blocks[0].text.replace(URL, stack.report.url).replace(KEY, key), encoding="utf-8")
    lines = blocks[1].text.replace("bin/headrace python", str(CHECKOUT.python))
    lines = lines.replace("bin/headrace", str(CHECKOUT.venv / "bin" / "headrace"))
    said = run("sh", lines, tmp_path, {"HEADRACE_URL": stack.report.url, "HEADRACE_API_KEY": key}).splitlines()
    assert sum(line.startswith("[simulated] ") for line in said) == 2, said
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted((each["line"], each["status"]) for each in results) == [(1, "succeeded"), (2, "succeeded")]


# ---- The receivers


@contextmanager
def receiving(language: str, stack: Stack, account: Account, folder: Path) -> Iterator[tuple[str, Path]]:
    """The page's receiver runs. Yields: its address, and the file of what it prints."""
    port, out = free_port(), folder / "out"
    program = RECEIVERS[language].replace("8080", str(port))
    env = {
        "OPENAI_BASE_URL": f"{stack.report.url}/v1",
        "OPENAI_API_KEY": account.key,
        "OPENAI_WEBHOOK_SECRET": account.webhook_secret,
    }
    words = command(language, program, folder)
    with (
        out.open("w") as file,
        subprocess.Popen(words, cwd=folder, env=environment(folder, env), stdout=file) as running,
    ):
        try:
            until(lambda: _listens(port), "the receiver listens")
            yield f"http://127.0.0.1:{port}/hooks", out
        finally:
            running.terminate()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def announced(stack: Stack, account: Account, url: str) -> dict[str, str]:
    """Ends jobs and batches in every way, each with this webhook. Returns: the id of each by its event."""
    client = OpenAI(base_url=f"{stack.report.url}/v1", api_key=account.key)
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()

    def job(options: dict[str, Any] | None = None, **more: Any) -> str:
        extra = {"job": {"webhook": url, **(options or {})}, **more}
        return client.responses.create(input="Name a lake.", background=True, extra_body=extra).id

    def batch(lines: str = FILE, **options: str) -> str:
        file = client.files.create(file=("lines.jsonl", lines.encode()), purpose="batch")
        return client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body={"job": {"webhook": url, **options}},
        ).id

    made = {
        "response.completed": job(),
        "response.incomplete": job(max_output_tokens=2),
        "response.failed": job({"deadline": soon}, min_tokens=1000),
        "response.cancelled": job({"not_before": later}),
        "batch.completed": batch(),
        "batch.failed": batch("{}"),
        "batch.cancelled": batch(not_before=later),
        "batch.expired": batch(not_before=later),
    }
    client.responses.cancel(made["response.cancelled"])
    client.batches.cancel(made["batch.cancelled"])
    expired = made["batch.expired"].removeprefix("batch_")
    with psycopg.connect(stack.report.database_url.replace("+psycopg", "")) as db:
        db.execute("UPDATE batches SET expires_at = now() WHERE id = %s::uuid", [expired])
    client.close()
    return made


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_a_receiver_handles_every_event(
    language: str, stack: Stack, account: Callable[..., Account], tmp_path: Path
) -> None:
    app = account(f"hooks-{language}")
    with receiving(language, stack, app, tmp_path) as (url, out):
        made = announced(stack, app, url)
        assert made.keys() == {*APP_EVENTS, *(each.event for each in WEBHOOKS)}
        until(lambda: len(out.read_text().splitlines()) >= len(made), "each event is handled")
        lines = out.read_text().splitlines()
        assert sorted(line.split()[:2] for line in lines) == sorted([each, made[each]] for each in made)
        said = {line.split()[0]: line for line in lines}
        assert all("[simulated]" in said[event] for event in ("response.completed", "response.incomplete"))
        assert "deadline" in said["response.failed"]
        assert "file-" in said["batch.completed"]
        assert "custom_id" in said["batch.failed"]


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_a_receiver_refuses_a_strangers_event_and_handles_a_repeat_once(
    language: str, stack: Stack, account: Callable[..., Account], tmp_path: Path
) -> None:
    app = account(f"repeats-{language}")
    with OpenAI(base_url=f"{stack.report.url}/v1", api_key=app.key) as client:
        data = {"id": client.responses.create(input="Name a lake.").id}
    delivery_id, now = new_id(), datetime.now(UTC)
    body = payload(delivery_id, "response.completed", data, now)
    with receiving(language, stack, app, tmp_path) as (url, out):

        def status(secret: str) -> int:
            return httpx2.post(url, content=body, headers=signed_headers([secret], delivery_id, now, body)).status_code

        assert [status(secret) for secret in (new_secret(), app.webhook_secret, app.webhook_secret)] == [400, 204, 204]
        assert len([line for line in out.read_text().splitlines() if line.startswith("response.completed")]) == 1
