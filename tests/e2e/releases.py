"""Two releases to run side by side: an older and a newer tree of this project.

Before the first release, the newer one is a copy of the present tree that adds a field to each format that processes
share, and a migration. Once there is a release, name its tag in `RELEASE`: the older tree is then that release, the
newer one the present tree.
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.config import PROJECT_ROOT
from headrace.tables import revisions

#: The tag of the last release; None before the first.
RELEASE: str | None = None
#: What a tree needs to run.
_PARTS = (
    *("api", "ops", "headrace", "migrations", "plugins", "scheduler", "workers"),
    *("Procfile", "headrace.toml", "pyproject.toml"),
)
#: The key of a job's metadata that makes the copy write a field which needs version 2.
STYLE = "style"

#: For each file, what is replaced and by what.
_NEWER: Mapping[str, Mapping[str, str]] = {
    # The payload: one field that older workers may ignore, and one that they may not.
    "headrace/domain/prompts/__init__.py": {
        "    n: int = 1\n\n    @property": (
            "    n: int = 1\n    aside: str | None = None\n    style: str | None = None\n\n    @property"
        ),
    },
    "headrace/domain/prompts/payloads.py": {
        "PAYLOAD_VERSION = 1\n": "PAYLOAD_VERSION = 2\n",
        "MappingProxyType({})": 'MappingProxyType({"style": 2})',
    },
    "headrace/store/jobs/insertion.py": {
        "stored_sampling(spec.sampling, messages)": (
            'stored_sampling(replace(spec.sampling, aside="x", style=spec.metadata.get("style")), messages)'
        ),
        "import time\n": "import time\nfrom dataclasses import replace\n",
    },
    # A job's message: a field that its taker reads, and an argument of the task.
    "headrace/broker/messages.py": {
        '            ("@JOB@", "@ENQUEUE_NO@"),\n            {},': (
            '            ("@JOB@", "@ENQUEUE_NO@"),\n            {"later": 1},'
        ),
        '            "app": "@APP@",': '            "later": 1,\n            "app": "@APP@",',
    },
    # Beat's tasks.
    "scheduler/app.py": {'return {"task": task,': 'return {"task": task, "kwargs": {"later": 1},'},
    # What web and control processes tell each other in Redis.
    "headrace/domain/fleet.py": {
        "    payload_version: int | None = None\n": "    payload_version: int | None = None\n    later: int = 0\n",
    },
    "headrace/policies/forecasting.py": {
        'how large its jobs are."""\n\n': 'how large its jobs are."""\n\n    later: int\n',
        'LaneRates(rates["arrival': 'LaneRates(rates.get("later", 0), rates["arrival',
    },
    "scheduler/observe.py": {"LaneRates(": "LaneRates(7, "},
    # Streams: a field of each entry, and news of another kind.
    "headrace/broker/lua/publish_stream.lua": {
        "'tokens', tokens)": "'tokens', tokens, 'later', '1')",
        "        for _, channel in ipairs(channels) do\n": (
            "        for _, channel in ipairs(channels) do\n          redis.call('PUBLISH', channel, 'later ' .. job)\n"
        ),
    },
}
#: A migration that adds to a table, and to what a view reads.
_MIGRATION = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "0999", {head!r}, None, None


def upgrade() -> None:
    op.execute("ALTER TABLE jobs ADD COLUMN later int")
    op.execute("ALTER TABLE apps ALTER COLUMN name TYPE varchar")
"""


@dataclass(frozen=True, slots=True)
class Trees:
    """The two trees. Attributes: has_style: the newer one writes a payload version that the older one cannot read."""

    older: Path
    newer: Path
    has_style: bool


def trees(folder: Path) -> Trees:
    """Make the tree that is not this one in an empty folder."""
    if RELEASE is None:
        return Trees(PROJECT_ROOT, _newer(folder), has_style=True)
    archive = subprocess.run(["git", "archive", RELEASE], cwd=PROJECT_ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return Trees(folder, PROJECT_ROOT, has_style=False)


def _newer(folder: Path) -> Path:
    for part in _PARTS:
        source = PROJECT_ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / part)
    for name, changes in _NEWER.items():
        path = folder / name
        text = path.read_text(encoding="utf-8")
        for old, new in changes.items():
            assert text.count(old) == 1, f"{name} has changed: change what tests/e2e/releases.py replaces: {old!r}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    migration = folder / "migrations" / "versions" / "0999_later.py"
    migration.write_text(_MIGRATION.format(head=revisions.newest()), encoding="utf-8")
    return folder
