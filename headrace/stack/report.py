"""The report of a running stack, as a private JSON file. Knows nothing of how the stack runs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from headrace.errors import StackError
from headrace.stack.secret import write_private


@dataclass(frozen=True, slots=True)
class Report:
    """The addresses, secrets and processes of a stack.

    Attributes:
        api_key: the key of an app without limits.
        ops_url: of the process that serves the operators' pages, which are at its `/ops`.
        flower_auth: Flower's login, as `USER:PASSWORD`.
        engine: the engine that answers; `simulator` makes its answers up.
        model_source: where the weights came from; None without weights.
        left_out: processes of the Procfile that do not run, and why.
        metrics_urls: by process name, the URL of each process's Prometheus metrics.
        pids: by process name, the embedded servers included.
        analyst_url: Postgres as a role that reads figures only; None if the stack does not run Postgres itself.
    """

    url: str
    api_key: str
    ops_url: str
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
    analyst_url: str | None = None

    def write(self, path: Path) -> None:
        """Replace the whole file. Only its owner can read it, because it holds secrets."""
        write_private(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The report in a file. Raises: OSError: the file is missing. StackError: it is not a report."""
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise StackError(f"{path} is damaged: remove it, and start the stack again.") from error
