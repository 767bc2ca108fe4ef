"""A provider's files and batches, of the stand-in for the paid API: it keeps its own bill, and misbehaves on order."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

#: What each fault does to a batch, whose first line is called the first.
FAULTS = (
    "expires",  # Its second half does not run.
    "fails",  # It is refused as a whole.
    "fails_in_part",  # The first line is answered with 500.
    "rejects",  # The first line is answered with 400.
    "drops",  # The first line is in neither file.
    "twice",  # The first line is answered twice, and billed twice.
    "unknown",  # A line that was never sent is answered, and billed.
    "bills_more",  # It bills tokens that no line has.
    "malformed",  # The answer to the first line cannot be read.
    "garbage",  # A line of the file is no JSON.
)
#: What `bills_more` adds.
MORE_TOKENS = 1000
MODEL = "gpt-4o-mini-2024-07-18"

Reply = tuple[int, dict[str, Any] | bytes]


@dataclass
class BatchProvider:
    """Files and batches.

    Attributes:
        faults: of `FAULTS`, what the next batches meet.
        is_held: batches do not end.
        has_totals: batches say what they bill.
        hidden: batches that are made, and not listed yet.
        is_away: every call is answered with this status; None: none is.
        calls: method and path of each call.
        billed: the tokens of all batches that have ended: prompt and output.
        made: files and batches that were made.
        url: of the stand-in.
    """

    faults: set[str] = field(default_factory=set)
    is_held: bool = False
    has_totals: bool = True
    is_away: int | None = None
    calls: list[str] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: By batch, the lines of its file, which it has read when it is made.
    lines: dict[str, bytes] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    billed: list[int] = field(default_factory=lambda: [0, 0])
    made: int = 0
    url: str = ""

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Reply:
        """Answer a call of `/v1/files` or `/v1/batches`."""
        url = urlsplit(target)
        self.calls.append(f"{method} {url.path}")
        if self.is_away is not None:
            return self.is_away, _error("away")
        match method, *url.path.removeprefix("/v1/").split("/"):
            case "POST", "files":
                return self._upload(headers, raw)
            case "GET", "files":
                return _page(self.files)
            case "GET", "files", file_id, "content" if file_id in self.contents:
                return 200, self.contents[file_id]
            case "DELETE", "files", file_id if file_id in self.files:
                del self.files[file_id], self.contents[file_id]
                return 200, {"id": file_id, "object": "file", "deleted": True}
            case "POST", "batches":
                return self._create(json.loads(raw))
            case "GET", "batches":
                seen = {name: batch for name, batch in self.batches.items() if name not in self.hidden}
                for batch in seen.values():
                    if batch["status"] == "cancelling":
                        self._looked_at(batch)
                return _page(seen)
            case "GET", "batches", batch_id if batch_id in self.batches:
                return 200, self._looked_at(self.batches[batch_id])
            case "POST", "batches", batch_id, "cancel" if batch_id in self.batches:
                batch = self.batches[batch_id]
                batch["status"] = "cancelling"
                return 200, batch
        return 404, _error("not_found")

    def _upload(self, headers: Mapping[str, str], raw: bytes) -> Reply:
        mark = re.search(r"boundary=(\S+)", headers["content-type"])
        assert mark is not None
        for part in raw.split(b"--" + mark[1].encode()):
            head, _, content = part.partition(b"\r\n\r\n")
            if found := re.search(rb'filename="([^"]+)"', head):
                return 200, self._put(found[1].decode(), content.removesuffix(b"\r\n"), "batch")
        return 400, _error("no_file")

    def _put(self, name: str, content: bytes, purpose: str) -> dict[str, Any]:
        file_id = self._next("file")
        self.contents[file_id] = content
        self.files[file_id] = {
            **{"id": file_id, "object": "file", "bytes": len(content), "created_at": 1, "filename": name},
            **{"purpose": purpose, "status": "processed"},
        }
        return self.files[file_id]

    def _next(self, kind: str) -> str:
        self.made += 1
        return f"{kind}-{self.made:04}"

    def _create(self, asked: dict[str, Any]) -> Reply:
        if asked["input_file_id"] not in self.files:
            return 404, _error("not_found")
        made = {
            **{"id": self._next("batch"), "object": "batch", "status": "in_progress", "created_at": 1},
            **{"errors": None, "output_file_id": None, "error_file_id": None, "usage": None, **asked},
        }
        self.batches[made["id"]], self.lines[made["id"]] = made, self.contents[asked["input_file_id"]]
        return 200, made

    def _looked_at(self, batch: dict[str, Any]) -> dict[str, Any]:
        """End a batch at the first look, unless batches are held."""
        if batch["status"] == "in_progress" and not self.is_held:
            self._end(batch, "completed")
        elif batch["status"] == "cancelling":
            self._end(batch, "cancelled")
        return batch

    def _end(self, batch: dict[str, Any], status: str) -> None:
        if "fails" in self.faults:
            errors = [{"code": "token_limit_exceeded", "message": "too many", "line": None, "param": None}]
            batch |= {"status": "failed", "errors": {"object": "list", "data": errors}}
            return
        lines = [json.loads(each) for each in self.lines[batch["id"]].splitlines()]
        run = lines
        if "expires" in self.faults:
            status, run = "expired", lines[: len(lines) // 2]
        elif status == "cancelled":
            run = lines[:1]
        answered, refused = self._answers(run)
        refused += [_not_run(each, f"batch_{status}") for each in lines if each not in run]
        usages = [each["response"]["body"]["usage"] for each in answered if each["response"]]
        counts = [sum(usage[name] for usage in usages) for name in ("prompt_tokens", "completion_tokens")]
        counts[1] += MORE_TOKENS if "bills_more" in self.faults else 0
        self.billed = [before + now for before, now in zip(self.billed, counts, strict=True)]
        batch |= {"status": status, **self._files(batch["id"], answered, refused)}
        if self.has_totals:
            details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
            named = {"input_tokens": counts[0], "output_tokens": counts[1], "total_tokens": sum(counts)}
            batch["usage"] = {**named, **details}

    def _answers(self, lines: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The lines of the files of answers and of errors."""
        answered = [_answered(each) for each in lines]
        first, refused = lines[0], list[dict[str, Any]]()
        if "twice" in self.faults:
            answered.append(_answered(first))
        if "unknown" in self.faults:
            answered.append(_answered({**first, "custom_id": "line-of-another"}))
        if "malformed" in self.faults:
            del answered[0]["response"]["body"]["choices"]
        for fault, status in (("fails_in_part", 500), ("rejects", 400)):
            if fault in self.faults:
                refused.append(_refused(answered.pop(0), status))
        if "drops" in self.faults:
            del answered[0]
        return answered, refused

    def _files(self, name: str, answered: Sequence[object], refused: Sequence[object]) -> dict[str, str | None]:
        made: dict[str, str | None] = {}
        for kind, lines in (("output", answered), ("error", refused)):
            texts = [json.dumps(each, ensure_ascii=False) for each in lines] + (
                ["{no json"] if "garbage" in self.faults else []
            )
            content = "".join(f"{text}\n" for text in texts).encode()
            made[f"{kind}_file_id"] = (
                self._put(f"{name}_{kind}.jsonl", content, "batch_output")["id"] if lines else None
            )
        return made


def _error(code: str) -> dict[str, Any]:
    return {"error": {"message": "no", "type": code, "code": code, "param": None}}


def _page(found: Mapping[str, dict[str, Any]]) -> Reply:
    """All of them, newest first."""
    data = [found[name] for name in sorted(found, reverse=True)]
    return 200, {"object": "list", "data": data, "has_more": False}


def _line(line: Mapping[str, Any], status: int, body: dict[str, Any]) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    return {"id": "batch_req_1", "custom_id": line["custom_id"], "response": response, "error": None}


def _answered(line: Mapping[str, Any]) -> dict[str, Any]:
    body = line["body"]
    prompt = " ".join(message["content"] for message in body["messages"])
    words = f"echo: {prompt}".split(" ")
    kept = words[: body.get("max_tokens") or body.get("max_completion_tokens")]
    counts = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(kept)}
    choice = {
        **{"index": 0, "finish_reason": "length" if len(kept) < len(words) else "stop", "logprobs": None},
        "message": {"role": "assistant", "content": " ".join(kept), "refusal": None},
    }
    completion = {
        **{"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]},
        **{"service_tier": "default", "usage": {**counts, "total_tokens": sum(counts.values())}},
    }
    return _line(line, 200, completion)


def _refused(line: Mapping[str, Any], status: int) -> dict[str, Any]:
    return _line(line, status, _error("refused"))


def _not_run(line: Mapping[str, Any], code: str) -> dict[str, Any]:
    error = {"code": code, "message": "This line was not run."}
    return {"id": "batch_req_1", "custom_id": line["custom_id"], "response": None, "error": error}
