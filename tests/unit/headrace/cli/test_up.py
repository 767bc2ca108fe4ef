"""`headrace up`, before anything starts: which engine, and what it says of it."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.cli import main
from headrace.cli.up import addresses, choose_engine
from tests.unit.headrace.stack.test_state_folder import REPORT


def set_installed(monkeypatch: pytest.MonkeyPatch, is_installed: bool) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if is_installed else None)


def test_the_simulator_stands_in_and_is_labelled_when_vllm_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_installed(monkeypatch, False)
    settings = choose_engine("vllm")
    assert settings.pools[settings.pool].engine == "simulator"
    assert "vLLM is not installed" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["vllm", "simulator"])
def test_the_engine_that_was_asked_for_is_taken_silently_when_it_is_there(
    asked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_installed(monkeypatch, True)
    settings = choose_engine(asked)
    assert settings.pools[settings.pool].engine == asked
    assert capsys.readouterr().out == ""


def test_all_pools_with_workers_of_their_own_get_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "headrace.toml"
    config.write_text('[pools.chat]\n[pools.paid]\nengine = "openai"\n[pools.fast]\nmodel = "small"')
    monkeypatch.setenv("HEADRACE_CONFIG", str(config))
    set_installed(monkeypatch, False)

    for asked in ("simulator", None):
        engines = {name: pool.engine for name, pool in choose_engine(asked).pools.items()}
        assert engines == {"chat": "simulator", "paid": "openai", "fast": "simulator"}


def test_an_engine_that_does_not_exist_is_refused_by_name() -> None:
    result = CliRunner().invoke(main, ["up", "--engine", "magic"])
    assert result.exit_code == 2
    assert "'magic' is not one of 'vllm', 'simulator'" in result.output


@pytest.mark.parametrize("option", ["--max-hosts", "--provision-s"])
def test_an_option_of_the_autoscaler_without_it_is_refused(option: str) -> None:
    result = CliRunner().invoke(main, ["up", option, "3"])
    assert result.exit_code == 2
    assert "--max-hosts and --provision-s need --scale." in result.output


@pytest.mark.parametrize(
    ("left_out", "shown"),
    [
        ([], ["API", "API key", "documentation", "pages", "Flower"]),
        (["web"], ["API key", "pages", "Flower"]),
        (["web", "ops", "flower"], ["API key"]),
    ],
)
def test_no_address_is_shown_of_what_does_not_run(left_out: list[str], shown: list[str]) -> None:
    report = replace(REPORT, left_out=dict.fromkeys(left_out, "as asked"))
    assert list(addresses(report)) == shown
