import json
from pathlib import Path
from typing import Annotated

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, Field

from headrace.cli import main
from headrace.cli import settings as module
from headrace.cli.settings import PAGE, page, sections
from headrace.config import PROJECT_ROOT, Settings
from headrace.config.variables import check_names


def test_committed_page_is_current() -> None:
    text = (PROJECT_ROOT / PAGE).read_text(encoding="utf-8")

    assert text == page(sections()), "run 'bin/headrace settings --page' and commit docs/settings.md"


def test_command_prints_the_page_or_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROJECT_ROOT", tmp_path)
    (tmp_path / "docs").mkdir()

    printed = CliRunner().invoke(main, ["settings"])
    written = CliRunner().invoke(main, ["settings", "--page"])

    listed = json.loads(CliRunner().invoke(main, ["settings", "--json"]).stdout)

    assert {
        "section": "[overflow]",
        "name": "timeout_s",
        "variable": "HEADRACE_OVERFLOW__TIMEOUT_S",
        "value": "seconds, above 0",
        "default": "60",
        "meaning": "A call is given up after the API was silent for so long.",
    } in listed
    assert printed.stdout == page(sections()) == (tmp_path / PAGE).read_text(encoding="utf-8")
    assert written.stdout == f"{PAGE} is made.\n"


def test_every_variable_on_the_page_sets_something() -> None:
    tables = [section for section in sections() if not section.header.startswith("[[")]
    lists = [section for section in sections() if section.header.startswith("[[")]
    variables = [setting.variable for section in tables for setting in section.settings]

    check_names(dict.fromkeys(variables, "1"), Settings)
    check_names({setting.variable: "1" for section in lists for setting in section.settings}, Settings)

    assert len(variables) == len(set(variables))
    assert {"DATABASE_URL", "HEADRACE_STATE", "HEADRACE_LANES__NAME__DEPTH_CAP"} <= set(variables)


def test_page_does_not_depend_on_what_is_set_here(monkeypatch: pytest.MonkeyPatch) -> None:
    before = page(sections())
    monkeypatch.setenv("HEADRACE_LEASE_S", "77")

    assert page(sections()) == before


def test_setting_without_a_description_is_named() -> None:
    class Described(BaseModel):
        """Two settings.

        Attributes:
            told: what it is.
        """

        told: int = 1
        untold: int = 2

    with pytest.raises(LookupError, match=r"^Described does not describe untold under 'Attributes:'\.$"):
        list(sections(Described))


class Lamp(BaseModel):
    """One lamp.

    Attributes:
        glow_s: how long it
            glows.
    """

    glow_s: Annotated[float, Field(gt=0)] = 5


class House(BaseModel):
    """A house.

    Attributes:
        dim: how dim it is.
        door: what closes it.
    """

    dim: Annotated[float, Field(ge=0, le=1)] | None = None
    door: str
    lamps: dict[str, Lamp] = Field(default_factory=lambda: {"hall": Lamp(), "attic": Lamp(glow_s=9)})


def test_values_have_units_and_bounds_and_tables_their_own_defaults() -> None:
    _, _, made = page(sections(House)).partition("## At the top of the file\n")

    assert (
        made
        == """
- **`dim`**, `HEADRACE_DIM`: How dim it is. *Share from 0 to 1.*
- **`door`**, `HEADRACE_DOOR`: What closes it. *Text. Default: none, it must be set.*

## `[lamps.NAME]`

`HEADRACE_LAMPS__NAME__…`

One lamp.

- **`glow_s`**: How long it glows. *Seconds, above 0. Default: `hall` 5; `attic` 9.*
"""
    )
