"""Takes shared batches away for a counter-proof: `SHARING_OFF=sharing` and this folder on PYTHONPATH, nowhere else.

Python runs this at its start. Each call is then a batch of one, served in its caller's thread while others are served.
"""

import os
from collections.abc import Hashable
from typing import Any

from headrace.batching import Batching

OFF = os.environ.get("SHARING_OFF", "").split(",")  # noqa: TID251 - no setting: the product knows nothing of it.


def call(self: Batching[Any, Any], ask: Any, key: Hashable | None = None) -> Any:
    """Serve one call alone. Raises: the error that it failed with."""
    [outcome] = self._serve([ask])
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


if "sharing" in OFF:
    Batching.call = call  # type: ignore[method-assign]
