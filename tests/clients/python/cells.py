"""What all scripts share: `SCRIPT URL KEY MODEL CELL ...` runs each cell, and prints a line of JSON for each.

It runs in every client's environment, so it imports the standard library alone.
"""

import json
import sys
import traceback
from collections.abc import Callable

#: The address with `/v1`, an app's key, and the model of the first pool.
URL, KEY, MODEL, *NAMES = sys.argv[1:]
QUESTION = "What is a headrace?"


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
    assert text is not None
    assert text.startswith("[simulated] "), text


def check_pieces(pieces: list[str]) -> None:
    """Several pieces, which are an answer together."""
    assert len([piece for piece in pieces if piece]) > 1, pieces
    check_answer("".join(pieces))
