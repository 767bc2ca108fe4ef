"""What all scripts share: `SCRIPT URL KEY MODEL ENGINE CELL ...` runs each cell, and prints a line of JSON for each.

It runs in every client's environment, so it imports the standard library alone.
"""

import json
import sys
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
