"""Secrets that survive restarts, and what a running stack reports."""

import json
import stat
from pathlib import Path

from headrace.stack.state_folder import StackReport, persistent_secret, write_private


def test_a_secret_is_random_private_and_the_same_the_next_time(tmp_path: Path) -> None:
    first, other = persistent_secret(tmp_path / "a"), persistent_secret(tmp_path / "b")
    assert len(first) >= 32
    assert first != other
    assert persistent_secret(tmp_path / "a") == first
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_secret_whose_file_was_left_empty_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert persistent_secret(tmp_path / "a")


def test_a_private_file_replaces_a_public_one_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


REPORT = StackReport(
    url="http://127.0.0.1:8000",
    api_key="hr-key",
    ops_url="http://127.0.0.1:8600",
    flower_url="http://127.0.0.1:5555",
    flower_auth="operator:password",
    database_url="postgresql+psycopg://headrace:password@127.0.0.1:15432/headrace",
    redis_url="redis://127.0.0.1:16379/0",
    engine="simulator",
    model="model",
    model_source=None,
    left_out={"overflow": "OPENAI_API_KEY is not set"},
    metrics_urls={"gpu": "http://127.0.0.1:9464/metrics"},
    pids={"web": 12},
)


def test_a_report_comes_back_as_it_was_written_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    REPORT.write(path)
    assert StackReport.read(path) == REPORT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_has_the_keys_that_the_design_promises(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    REPORT.write(path)
    promised = {"url", "api_key", "ops_url", "flower_url", "database_url", "redis_url", "pids"}
    assert promised <= json.loads(path.read_text()).keys()
