"""What all scripts share: `SCRIPT URL KEY MODEL ENGINE CELL ...` runs each cell, and prints a line of JSON for each.

It runs in every client's environment, so it imports the standard library alone.
"""

import json
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sized

#: The address with `/v1`, an app's key, the model of the first pool, and the engine that serves it.
URL, KEY, MODEL, ENGINE, *NAMES = sys.argv[1:]
IS_SIMULATED = ENGINE == "simulator"
#: A small model answers a greeting in a few words.
QUESTION = "What is a headrace?" if IS_SIMULATED else "Hello."
#: Of a request that a call answers, and of one that a text answers. The simulator chooses by itself, as a large model
#: does; a small one is told.
TO_CALL = {} if IS_SIMULATED else {"tool_choice": "required"}
TO_ANSWER = {} if IS_SIMULATED else {"tool_choice": "none"}
NAMES_OF_LINES = ["a", "b", "c"]
#: The most streams that are asked for one in several pieces.
STREAMS = 5


def run(**cells: Callable[[], object]) -> None:
    """Run those cells that are named. One that fails leaves the others alone."""
    for name in NAMES:
        error = None
        try:
            cells[name]()
        except BaseException:
            error = traceback.format_exc()
        print(json.dumps({"cell": name, "error": error}), flush=True)


def check_answer(text: str | None) -> None:
    """It is the engine's: the simulator marks its answers."""
    assert text
    assert not IS_SIMULATED or text.startswith("[simulated] "), text


def batch_lines() -> bytes:
    """The file of a batch: chat completions, a line each."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    return "\n".join(json.dumps({"custom_id": name, **line}) for name in NAMES_OF_LINES).encode()


def check_batch(text: str) -> None:
    """The output file has the answer to each line."""
    results = {result["custom_id"]: result["response"] for result in map(json.loads, text.splitlines())}
    assert sorted(results) == NAMES_OF_LINES, text
    for response in results.values():
        assert response["status_code"] == 200, response
        check_answer(response["body"]["choices"][0]["message"]["content"])


def ended(read: Callable[[], str]) -> str:
    """The last state of a batch. Args: read: its state now."""
    for _ in range(600):
        if (state := read()) in ("completed", "failed", "expired", "cancelled"):
            return state
        threading.Event().wait(0.2)
    raise TimeoutError("The batch does not end.")


def check_streamed(listen: Callable[[], Iterable[str | None]]) -> None:
    """An answer comes in several pieces, which are the answer together."""

    def pieces() -> list[str]:
        heard = [piece for piece in listen() if piece]
        check_answer("".join(heard))
        return heard

    check_several(pieces)


def check_several(listen: Callable[[], Sized]) -> None:
    """A stream comes in several pieces. A busy machine may send one stream whole, but not each of several."""
    heard = [listen()]
    while len(heard[-1]) < 2 and len(heard) < STREAMS:
        heard.append(listen())
    assert len(heard[-1]) > 1, heard
