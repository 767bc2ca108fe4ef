"""A worker's process that cannot follow its settings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.config import PROJECT_ROOT, Settings

PAID = 'pool = "mini"\nopenai_api_key = "sk-test"\n[pools.mini]\nmodel = "gpt-4o-mini"\nengine = "openai"\n'


@pytest.mark.parametrize(
    ("role", "toml", "setting", "sentence"),
    [
        ("gpu", PAID, "pool", "The paid API alone answers pool 'mini' (engine 'openai'), by the overflow worker: "),
        (
            "webhooks",
            '[budgets]\nwebhook_url = "https://ops.example/hook"\n',
            "budgets.webhook_secret",
            "budgets.webhook_url is set, and nothing to sign it with: set HEADRACE_BUDGETS__WEBHOOK_SECRET",
        ),
        ("overflow", "", "OPENAI_API_KEY", "The paid API needs a key: set OPENAI_API_KEY."),
    ],
)
def test_it_says_so_in_a_sentence_and_ends_with_an_error(
    settings: Settings, tmp_path: Path, role: str, toml: str, setting: str, sentence: str
) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text(toml)
    # Celery warns of root.
    command = [sys.executable, "-W", "ignore", "-m", "celery", "--app", f"workers.app:{role}", "worker"]
    servers = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    env = {"HEADRACE_CONFIG": str(file), **servers}
    ended = subprocess.run(command, env=env, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    [told] = [line for line in map(json.loads, ended.stderr.splitlines()) if line["level"] == "critical"]
    assert (told["event"], told["setting"]) == ("worker_not_configured", setting)
    assert told["error"].startswith(sentence)
