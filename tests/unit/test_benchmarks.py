"""The registry of claims, the figures and their page, as they are in this checkout."""

from pathlib import Path

import pytest

from headrace.cli.bench.claims import REGISTRY, Claim, read_claims
from headrace.cli.bench.figures import FIGURES, read_figures
from headrace.cli.bench.page import PAGE, page, without_marks

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = read_claims((ROOT / REGISTRY).read_text())


def test_each_script_with_a_claim_is_registered() -> None:
    # The others are peers and what the scripts stand on: they have no command line.
    scripts = {
        f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py") if "@click.command" in path.read_text()
    }

    assert scripts == {claim.script for claim in CLAIMS.values()}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_what_a_claim_measures_exists(claim: Claim) -> None:
    assert [path for path in claim.measures if not (ROOT / path).exists()] == []


def test_the_page_of_figures_is_current() -> None:
    """Its marks of age aside, which change with every commit: `bin/headrace bench --page` makes it again."""
    figures = read_figures(ROOT / FIGURES)

    assert without_marks((ROOT / PAGE).read_text()) == page(CLAIMS, figures, {}), "Run: bin/headrace bench --page"


def test_each_figure_has_a_claim_and_names_its_commit_or_is_from_before() -> None:
    figures = read_figures(ROOT / FIGURES)

    assert figures.keys() <= CLAIMS.keys()
    assert [name for name, figure in figures.items() if not figure.text and not (figure.commit and figure.date)] == []
