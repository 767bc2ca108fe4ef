"""A disk without room under `headrace up`: what cannot be written is written later, and nothing stops for it."""

import os
from pathlib import Path

import pytest

from headrace.errors import StackError
from headrace.stack.stack import Stack
from tests.waiting import until

DEADLINE_S = 60.0


def test_a_report_that_a_full_disk_refuses_stops_no_stack_and_is_written_once_there_is_room(tmp_path: Path) -> None:
    without = ("web", "gpu", "webhooks", "control", "flower")
    options = ("--engine", "simulator", *(word for name in without for word in ("--without", name)))
    with Stack(tmp_path / "state", options, {"OPENAI_API_KEY": ""}) as stack:
        log = stack.state_dir / "logs" / "up.log"
        before = stack.report.pids["beat"]
        # What is written first of a report: each write of it fails: there is no room.
        draft = stack.state_dir / "ready.json.new"
        refusing = stack.state_dir / "stack.json.new"
        for path in (draft, refusing):
            path.mkdir()
        stack.kill("beat")
        until(lambda: "cannot be written" in log.read_text(), "the failure is told")
        until(lambda: "beat ended" in log.read_text(), "beat is started again")
        assert stack.pid
        os.kill(stack.pid, 0)
        assert "Traceback" not in log.read_text()
        for path in (draft, refusing):
            path.rmdir()
        until(lambda: stack.report.pids.get("beat") not in (None, before), "the report is written again")
        try:
            stack._running.check_alive()
        except StackError as error:
            pytest.fail(str(error))
