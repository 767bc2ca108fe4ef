"""`headrace plan` of a model that the hub has, or has not: a hub of our own, over real HTTP."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from headrace.config import PROJECT_ROOT

CONFIG = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
#: Nothing listens there.
NO_HUB = "http://127.0.0.1:1"

Plan = Callable[[str, str], "subprocess.CompletedProcess[str]"]


class Hub(BaseHTTPRequestHandler):
    """Has one model's config.json."""

    def do_GET(self) -> None:
        is_known = self.path == "/org/known/resolve/main/config.json"
        body = json.dumps(CONFIG).encode() if is_known else b""
        self.send_response(200 if is_known else 404)
        headers = {"X-Repo-Commit": "a" * 40, "ETag": '"1"'} if is_known else {"X-Error-Code": "RepoNotFound"}
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Runs it in a process of its own: the hub's address is read when its library is imported."""

    def run(model: str, endpoint: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from headrace.cli import main; main()", "plan", "--model", model, "--json"]
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HEADRACE_STATE": str(tmp_path)}
        return subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)

    return run


def test_a_model_of_the_hub_is_planned_for_and_again_while_the_hub_is_away(plan: Plan, hub: str) -> None:
    first, again = plan("org/known", hub), plan("org/known", NO_HUB)

    assert (first.returncode, first.stderr) == (0, "")
    assert json.loads(first.stdout)["kv_bytes_per_token"] == 2 * 30 * 3 * 64 * 2
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")


def test_without_a_hub_one_line_says_what_to_do(plan: Plan) -> None:
    told = plan("org/known", NO_HUB)

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(
        "Error: The config.json of org/known cannot be read: the Hugging Face hub does not hand it out (ConnectError). "
        "Give --model a folder or the file itself"
    )
    assert told.stderr.count("\n") == 1


def test_a_model_that_the_hub_has_not_is_named_in_one_line(plan: Plan, hub: str) -> None:
    told = plan("org/unknown", hub)

    assert told.returncode == 1
    assert "The config.json of org/unknown" in told.stderr
    assert "(RepositoryNotFoundError)" in told.stderr
    assert told.stderr.count("\n") == 1


def test_what_is_no_id_is_named_in_one_line(plan: Plan) -> None:
    told = plan("a/b/c", NO_HUB)

    assert told.returncode == 1
    assert "a/b/c" in told.stderr
    assert told.stderr.count("\n") == 1
