"""What a running stack says of itself."""

import json
import stat
from pathlib import Path

from headrace.stack.report import Report

REPORT = Report(
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
    assert Report.read(path) == REPORT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_has_the_keys_that_the_design_promises(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    REPORT.write(path)
    promised = {"url", "api_key", "ops_url", "flower_url", "database_url", "redis_url", "pids"}
    assert promised <= json.loads(path.read_text()).keys()
