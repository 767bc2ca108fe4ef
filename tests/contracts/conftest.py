"""Models that engines answer with, and a stand-in for the paid API."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headrace.config import PoolSettings, Settings
from headrace.stack.model import EMBEDDING_MODEL, PreparedModel, prepare
from tests.contracts.adapter import write_adapter


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with random weights, which loads fast and talks nonsense."""
    folder = tmp_path_factory.mktemp("tiny") / "llama"
    program = Path(__file__).with_name("tiny_llama.py")
    subprocess.run([sys.executable, program, folder], check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """The folder of a LoRA adapter of that model, with random weights too."""
    return write_adapter(tmp_path_factory.mktemp("tiny") / "adapter", tiny_llama)


@pytest.fixture(scope="session")
def smollm2() -> PreparedModel:
    """The default model: real weights, brought once and kept in the state folder."""
    return prepare(Settings.load(model=None, model_dir=None, engine="vllm"), print)


@pytest.fixture(scope="session")
def minilm() -> PreparedModel:
    """The embedding model: real weights, brought once and kept in the state folder."""
    pool = PoolSettings(model=EMBEDDING_MODEL, serves="embeddings")
    return prepare(Settings.load(model=None, model_dir=None, engine="vllm", pool="embed", pools={"embed": pool}), print)


class _Server(ThreadingHTTPServer):
    #: Connections that wait to be accepted: twenty calls come at once, and one too many would be reset.
    request_queue_size = 64


class StandIn:
    """A small server that speaks chat completions on loopback.

    It plays the script first, one entry per request: `(status, body)`, with headers as a third, or `"reset"`. A body is
    the chunks of a stream, an object, or bytes, after which the connection is closed. After the script it answers by
    itself: what a JSON schema's `const` demands, else an echo of the last message.

    Attributes:
        script: what the next requests meet.
        requests: headers and body of each request.
        release: requests for `HOLD` are answered once it is set.
        held: set while one of them waits.
        also: answers all other paths: the status and the body, of the method, the path, the headers and the body.
    """

    HOLD = "wait for me"
    LONGEST_PROMPT = 1000

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.release, self.held = threading.Event(), threading.Event()
        self.also: Callable[[str, str, dict[str, str], bytes], tuple[int, Any]] = lambda *_: (404, {})
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def hold(self) -> None:
        """Hold back the answers to `HOLD` from now on, until `release` is set."""
        self.held.clear()
        self.release.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        prompt = " ".join(message["content"] for message in body["messages"])
        if len(prompt.split()) > self.LONGEST_PROMPT:
            error = {"message": "too long", "code": "context_length_exceeded", "param": "messages"}
            return 400, {"error": error}
        if self.HOLD in prompt:
            self.held.set()
            self.release.wait(30)
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        text = json.dumps(schema["const"]) if "const" in schema else f"echo: {prompt}"
        words = text.split(" ")
        kept = words[: body["max_tokens"]]
        text = " ".join(kept)
        for stop in body.get("stop", ()):
            text = text.partition(stop)[0]
        return 200, self.completion(
            text,
            finish_reason="length" if len(kept) < len(words) else "stop",
            prompt_tokens=len(prompt.split()),
            completion_tokens=body.get("n", 1) * len(kept),
            n=body.get("n", 1),
            top_logprobs=body.get("top_logprobs", 0) if body.get("logprobs") else None,
        )

    @staticmethod
    def completion(
        text: str | None, finish_reason: str | None = "stop", top_logprobs: int | None = None, n: int = 1, **usage: Any
    ) -> list[dict[str, Any]]:
        """A chat completion as the chunks in which OpenAI streams it; each word a token. Its `n` answers are alike."""
        counts = {"prompt_tokens": 7, "completion_tokens": 3, **usage}
        total = {**counts, "total_tokens": counts["prompt_tokens"] + counts["completion_tokens"]}

        def said(token: str) -> dict[str, Any] | None:
            if not token or top_logprobs is None:
                return None
            likeliest = [
                {"token": each, "logprob": -0.5 - rank, "bytes": list(each.encode())}
                for rank, each in enumerate((token, *(f" other{no}" for no in range(top_logprobs))))
            ]
            return {"content": [{**likeliest[0], "top_logprobs": likeliest[:top_logprobs]}], "refusal": None}

        words = [] if text is None else text.split(" ")
        pieces = [word if no == 0 else f" {word}" for no, word in enumerate(words)]
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
        choices: list[list[dict[str, Any]]] = [
            [{"index": index, "delta": delta, "finish_reason": None, "logprobs": said(delta["content"])}]
            for delta in deltas
            for index in range(n)
        ]
        ends = [[{"index": index, "delta": {}, "finish_reason": finish_reason, "logprobs": None}] for index in range(n)]
        head = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o-mini-2024-07-18",
            "service_tier": "default",
        }
        chunks = [{**head, "choices": each, "usage": None} for each in (*choices, *ends)]
        return [*chunks, {**head, "choices": [], "usage": total}]

    @staticmethod
    def events(chunks: list[dict[str, Any]]) -> bytes:
        """Chunks as server-sent events, with the end mark."""
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return "".join([*lines, "data: [DONE]\n\n"]).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None: ...

            def do_GET(self) -> None:
                self._also()

            def do_DELETE(self) -> None:
                self._also()

            def _also(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, answer = stand_in.also(self.command, self.path, headers, raw)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                # The client may have given up.
                with suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def do_POST(self) -> None:
                if not self.path.endswith("/chat/completions"):
                    self._also()
                    return
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                stand_in.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                act = stand_in.script.pop(0) if stand_in.script else stand_in.answer(body)
                if act == "reset":
                    self.close_connection = True
                    return
                status, answer, *more = act
                headers = {"content-type": "text/event-stream" if status == 200 else "application/json"}
                if isinstance(answer, bytes):
                    raw, headers["connection"] = answer, "close"
                    self.close_connection = True
                else:
                    raw = stand_in.events(answer) if isinstance(answer, list) else json.dumps(answer).encode()
                    headers["content-length"] = str(len(raw))
                self.send_response(status)
                for name, value in {**headers, **(more[0] if more else {})}.items():
                    self.send_header(name, value)
                # A caller may have hung up.
                with suppress(OSError):
                    self.end_headers()
                    self.wfile.write(raw)

        return Handler


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()
