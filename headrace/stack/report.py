"""What a running stack says of itself, as a private JSON file. Knows nothing of how it runs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from headrace.errors import StackError
from headrace.stack.secret import write_private


@dataclass(frozen=True, slots=True)
class Report:
    """Where everything is.

    Attributes:
        api_key: of an app without limits.
        flower_auth: what opens Flower: `USER:PASSWORD`.
        engine: what answers; `simulator` makes its answers up.
        model_source: where the weights came from; None where there are none.
        left_out: processes of the Procfile that do not run, and why.
        metrics_urls: by process name, where each worker serves Prometheus.
        pids: by process name, the embedded servers included.
    """

    url: str
    api_key: str
    flower_url: str
    flower_auth: str
    database_url: str
    redis_url: str
    engine: str
    model: str
    model_source: str | None
    left_out: dict[str, str]
    metrics_urls: dict[str, str]
    pids: dict[str, int]

    def write(self, path: Path) -> None:
        """Replace the file whole, readable by its owner alone: it holds secrets."""
        write_private(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The report in a file. Raises: OSError: there is none. StackError: it is not a report."""
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise StackError(f"{path} is damaged: remove it, and start the stack again.") from error
