"""Takes shared batches away for a counter-proof: `SHARING_OFF=sharing` and this folder on PYTHONPATH, nowhere else.

Python runs this at its start. Each call is then served in a thread of its own, as a batch of one, while others are.
"""

import os
from collections.abc import Callable, Hashable
from typing import Any

from headrace.batching import Batching

OFF = os.environ.get("SHARING_OFF", "").split(",")  # noqa: TID251 - no setting: the product knows nothing of it.


def served(batching: Batching[Any, Any], ask: Any) -> Any:
    """The outcome of one call alone: its result or its error."""
    try:
        [outcome] = batching._serve([ask])
    except Exception as error:
        return error
    return outcome


def call(self: Batching[Any, Any], ask: Any, key: Hashable | None = None) -> Any:
    """Serve it in its caller's thread."""
    if isinstance(outcome := served(self, ask), BaseException):
        raise outcome
    return outcome


def post(
    self: Batching[Any, Any],
    ask: Any,
    tell: Callable[[Any], object],
    start: Callable[[Callable[[], object]], object],
) -> None:
    """Serve it in a thread that `start` chooses."""
    start(lambda: tell(served(self, ask)))


if "sharing" in OFF:
    Batching.call = call  # type: ignore[method-assign]
    Batching.post = post  # type: ignore[method-assign]
