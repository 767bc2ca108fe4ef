"""Writes Headrace's dashboards as JSON for Grafana, into `dashboards/` beside this file, or into a given folder.

bin/headrace python docker/grafana/dashboards.py [FOLDER]

Every control process reads the same values from Postgres and Redis, so queries take their `max`. Counters and
histograms are counted by one process each, so queries take their `sum`.
"""

import json
import sys
from pathlib import Path

from fleet import FLEET
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from jobs import JOBS
from panels import board
from processes import PROCESSES

DASHBOARDS = (
    board("headrace-jobs", "Headrace: jobs", "What apps ask for, how long it waits, and how it ends.", JOBS),
    board("headrace-fleet", "Headrace: fleet", "Hosts, scaling decisions, workers and their engines.", FLEET),
    board("headrace-processes", "Headrace: processes", "HTTP, webhooks, sweeps, servers and processes.", PROCESSES),
)


def write(folder: Path) -> None:
    """Write each dashboard into a file of its name."""
    for each in DASHBOARDS:
        made = each.build()
        text = json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True)
        (folder / f"{made.uid}.json").write_text(text + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")
