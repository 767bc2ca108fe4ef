"""Calls that Schemathesis makes from the served OpenAPI document, and what came of them: a process of its own."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import schemathesis
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

#: As in tests/integration/api/test_schemathesis.py, where each line has its reason.
CHECKS: dict[str, Any] = {
    "positive_data_acceptance": {"enabled": False},
    "unsupported_method": {"enabled": False},
    "allow_header_conformance": {"enabled": False},
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503", "504"]},
}
OPERATIONS = [{"include-name": "POST /v1/files", "checks": {"negative_data_rejection": {"enabled": False}}}]
#: Failures that are kept in full.
FAILURES_KEPT = 20
#: A server that does not answer for so long, in seconds, has failed.
TIMEOUT_S = 120.0


class Tally:
    """Counts.

    Attributes:
        server_errors: by code, of the API's own error or else the status.
        gave_up: how often Schemathesis could make up no more calls of an operation in a round.
    """

    def __init__(self) -> None:
        self.calls = self.gave_up = 0
        self.statuses: Counter[str] = Counter()
        self.server_errors: Counter[str] = Counter()
        self.operations: set[str] = set()
        self.failures: list[str] = []
        self.failed = 0

    def add(self, recorder: ScenarioRecorder) -> None:
        """Count one scenario."""
        for case_id, interaction in recorder.interactions.items():
            self.calls += 1
            self.operations.add(recorder.cases[case_id].value.operation.label)
            response = interaction.response
            status = 0 if response is None else response.status_code
            self.statuses[str(status)] += 1
            if response is None or status >= 500:
                self.server_errors[_code(response)] += 1
        for failure in _failures(recorder):
            self.failed += 1
            self.failures += [failure] if len(self.failures) < FAILURES_KEPT else []

    def told(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {**vars(self), "operations": sorted(self.operations)}


def _code(response: Any) -> str:
    if response is None:
        return "no_answer"
    try:
        return str(json.loads(response.content)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return str(response.status_code)


def _failures(recorder: ScenarioRecorder) -> Iterator[str]:
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if (found := check.failure_info) and not _is_allowed(check.name, recorder.cases[case_id].value.body):
                yield f"{recorder.label} {check.name}: {found.failure}\n{found.code_sample}"


def _is_allowed(check: str, body: Any) -> bool:
    """Whether a body outside its schema may be accepted: unknown fields that are null are, which no schema can say."""
    return check == "negative_data_rejection" and "null" in json.dumps(body, default=str)


def fuzz(url: str, key: str, seed: int, calls: int) -> Tally:
    """Make at least this number of calls. Each round has a seed of its own; the first also has examples and bounds."""
    document, tally = httpx2.get(f"{url}/openapi.json").json(), Tally()
    for number in range(1_000_000):
        settings = {
            "base-url": url,
            "headers": {"Authorization": f"Bearer {key}"},
            "seed": seed + 1000 * number,
            "request-timeout": TIMEOUT_S,
            "phases": {
                "examples": {"enabled": not number},
                "coverage": {"enabled": not number and not seed},
                "fuzzing": {"generation": {"max-examples": 60}},
                "stateful": {"generation": {"max-examples": 20}},
            },
            "checks": CHECKS,
            "operations": OPERATIONS,
        }
        schema = schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_dict(settings))
        for event in from_schema(schema).execute():
            if isinstance(event, events.FatalError):
                raise RuntimeError(str(event))
            if isinstance(event, events.NonFatalError):
                # Schemathesis itself failed to make a call of this operation up: the rest goes on.
                tally.gave_up += 1
                print(f"{event.label}: {event.info.message}", file=sys.stderr)
            if isinstance(event, events.ScenarioFinished):
                tally.add(event.recorder)
                print(json.dumps({"calls": tally.calls}), flush=True)
        if tally.calls >= calls:
            break
    return tally


if __name__ == "__main__":
    url, key, seed, calls = sys.argv[1:]
    print(json.dumps(fuzz(url, key, int(seed), int(calls)).told()), flush=True)
