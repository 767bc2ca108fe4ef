import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.engines.vllm.scratch import Scratch

HOLDER = """
import sys, tempfile, threading
from workers.engines.vllm.scratch import Scratch
tempfile.tempdir = sys.argv[1]
scratch = Scratch()
scratch.open()
(scratch.path / "socket").touch()
print(scratch.path, flush=True)
threading.Event().wait()
"""


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="scratch-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def test_close_leaves_nothing(root: Path) -> None:
    scratch = Scratch()
    scratch.open()
    scratch.open()
    assert scratch.path.parent == root
    (scratch.path / "socket").touch()
    scratch.close()
    scratch.close()
    assert list(root.iterdir()) == []


def test_a_dead_process_s_folder_is_swept_and_a_live_one_s_is_not(root: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        path = Path(holder.stdout.readline().strip())
        mine = Scratch()
        mine.open()
        assert path.is_dir()
        mine.close()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert path.is_dir()
    mine.open()
    assert not path.exists()
    assert sorted(root.iterdir()) == sorted([mine.path, mine.path.with_name(f"{mine.path.name}.lock")])
    mine.close()


def test_a_folder_for_sockets_has_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    assert len(str(Scratch().path)) <= 65
