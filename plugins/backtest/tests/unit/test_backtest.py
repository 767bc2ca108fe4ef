"""`headrace backtest`, from a file to its last line."""

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from headrace.cli import main
from plugins.backtest import runs

LAST = re.compile(
    r"usd_vs_reactive=(\d+\.\d+) usd_vs_oracle=(\d+\.\d+) peak_use=(0\.\d+) refused_share=(\d\.\d+) "
    r"p95_wait_s=(\d+\.\d) p99_wait_s=(\d+\.\d)"
)


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    path = tmp_path / "rates.csv"
    path.write_text("minute,requests\n" + "".join(f"{minute},{60 + minute}\n" for minute in range(90)))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["backtest", *map(str, arguments)])


def test_all_policies_are_compared_and_the_last_line_has_the_figures_of_predictive(rates: Path, tmp_path: Path) -> None:
    chart, figures = tmp_path / "chart.svg", tmp_path / "figures.json"
    result = run(rates, "--peak-hosts", "4", "--off", "trend", "--chart", chart, "--json", figures)

    assert result.exit_code == 0, result.output
    # A long path breaks its line elsewhere.
    assert "scaled by" in " ".join(result.output.split())
    words = " ".join(result.output.split())
    for shown in ("usd_per_hour=4.1", "overflow_usd=0.015", "prompt_tokens=1155", "max_hosts=20", "seed=1"):
        assert shown in words
    for policy in (*runs.POLICIES, "no trend"):
        assert f"\n{policy} " in result.output
    found = LAST.fullmatch(result.output.splitlines()[-1])
    assert found is not None
    headings = {element.text for element in ElementTree.parse(chart).iter() if element.get("class") == "heading"}
    assert headings == {"rates.csv, 2026-01-05", *runs.POLICIES, "no trend"}
    written = json.loads(figures.read_text())
    policies = written["policies"]
    assert written["terms"]["peak_in_hosts"] == pytest.approx(4)
    ratio = policies["predictive"]["usd_per_1000"] / policies["reactive"]["usd_per_1000"]
    assert float(found[1]) == pytest.approx(ratio, abs=0.001)
    assert float(found[3]) == pytest.approx(policies["predictive"]["peak_use"], abs=0.001)


def test_the_same_seed_gives_the_same_figures_in_one_process_and_in_two(
    rates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for number, (below, seed) in enumerate(((0, "1"), (10**9, "1"), (10**9, "2"))):
        monkeypatch.setattr(runs, "ALONE_BELOW", below)
        path = tmp_path / f"{number}.json"
        options = ("--policy", "predictive", "--policy", "oracle", "--processes", "2", "--seed", seed)
        assert run(rates, *options, "--json", path).exit_code == 0
        written.append(json.loads(path.read_text())["policies"])

    assert written[0] == written[1]
    assert written[1] != written[2]


def test_a_ratio_to_a_policy_that_did_not_run_is_nan(rates: Path) -> None:
    result = run(rates, "--policy", "predictive")

    assert result.output.splitlines()[-1].startswith("usd_vs_reactive=nan usd_vs_oracle=nan peak_use=0.")


def test_a_wrong_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text("minute,requests\n0,many\n")
    result = run(path)

    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "line 2, column requests: 'many' is not a number" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Give a TRACE or --synthetic"),
        (("a.csv", "--synthetic", "day"), "Give a TRACE or --synthetic"),
        (("--synthetic", "ramp", "--max-hosts", "1"), "--max-hosts 1 is below --min-hosts 2"),
        (("--synthetic", "ramp", "--starts-at", "soon"), "'soon' is not a time"),
        (("--synthetic", "ramp", "--usd-per-hour", "nan"), "'nan' is not a number"),
        (("--synthetic", "ramp", "--peak-hosts", "0"), "0.0 is not in the range"),
        (("--synthetic", "ramp", "--chart", "ramp.png"), "'ramp.png' does not end in .svg"),
    ],
)
def test_options_that_contradict_are_refused(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)

    assert result.exit_code != 0
    assert words in " ".join(result.output.split())


def test_a_missing_numpy_is_named_with_the_remedy(rates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)

    assert "numpy, which this environment lacks. Run 'bin/headrace install --dev', or" in run(rates).output
