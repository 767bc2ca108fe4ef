"""The demo as a newcomer meets it: it stays up until Ctrl-C, also in a script's background."""

import signal
import subprocess
import sys
from pathlib import Path

from headrace.config import PROJECT_ROOT
from tests.waiting import until

#: A script's background job starts with SIGINT ignored.
IGNORING = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); from headrace.__main__ import main; main()"
)


def test_ctrl_c_stops_a_demo_in_the_background(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-c", IGNORING, "demo", "--engine", "simulator"]
    env = {"PATH": "/usr/bin:/bin", "HEADRACE_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)}
    with (
        out.open("w") as file,
        subprocess.Popen(words, cwd=PROJECT_ROOT, env=env, stdout=file, stderr=subprocess.STDOUT) as demo,
    ):
        try:
            until(lambda: demo.poll() is not None or "Ctrl-C stops it." in out.read_text(), "the demo is up", 120)
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0, out.read_text()
        finally:
            demo.terminate()
    said = out.read_text()
    assert said.rstrip().endswith("Stopping everything.")
    assert "These answers are made up" in said
