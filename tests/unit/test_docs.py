"""The pages name files and headings that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.schemas.chat import ChatRequest
from api.schemas.completions import CompletionRequest
from api.schemas.openai import TIER_LANES, OpenAIRequest
from api.schemas.response_request import ResponseRequest
from headrace.config import PROJECT_ROOT, Settings
from headrace.policies.webhooks import APP_EVENTS, BUDGET_EVENT, SCALING_EVENT

API_PAGE = PROJECT_ROOT / "docs" / "api.md"
PAGES = sorted([*PROJECT_ROOT.glob("docs/*.md"), PROJECT_ROOT / "README.md", PROJECT_ROOT / "CONTRIBUTING.md"])
FOLDERS = sorted(
    path.name for path in PROJECT_ROOT.iterdir() if path.is_dir() and path.name.isidentifier() and path.name != "build"
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
#: In code, a path that begins with a folder of the checkout. Words in capitals stand for a name of the reader's.
PATH = re.compile(rf"`(?:bin/headrace python )?((?:{'|'.join([*FOLDERS, '.ci'])})/[\w./*-]*)")
#: `workers.` and the like may be a table's column.
MODULE = re.compile(r"`(headrace(?:\.(?!toml)\w+)+)`")


def names(page: Path, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    return pattern.finditer(page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What GitHub makes of each heading: lower case, words joined by hyphens, no other marks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_object(name: str) -> bool:
    """Whether this dotted name is a module, or a name that a module's text has."""
    *folders, last = name.split(".")
    path = PROJECT_ROOT.joinpath(*folders)
    if (path / last).is_dir() or (path / f"{last}.py").is_file():
        return True
    module = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    return module.is_file() and re.search(rf"\b{last}\b", module.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in names(page, LINK):
        target = (page.parent / link[1]).resolve() if link[1] else page
        assert target.exists(), link[0]
        assert not link[2] or link[2] in anchors(target), link[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    for path in names(page, PATH):
        assert any(PROJECT_ROOT.glob(re.sub(r"\b[A-Z]+\b", "*", path[1].rstrip("/.")))), path[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_exist(page: Path) -> None:
    for name in names(page, MODULE):
        assert is_object(name[1]), name[1]


@pytest.mark.parametrize("picture", sorted(PROJECT_ROOT.glob("docs/ops/*.png")), ids=lambda path: path.name)
def test_a_picture_is_small_and_shown(picture: Path) -> None:
    assert picture.stat().st_size < 150_000
    assert f"ops/{picture.name}" in (PROJECT_ROOT / "docs/ops.md").read_text(encoding="utf-8")


def test_the_path_of_a_job_leads_to_functions_that_exist() -> None:
    text = (PROJECT_ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    path = text.partition("## One job's path")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d+\. `([\w/]+\.py)` `([\w.]+)`", path, re.MULTILINE)
    assert len(steps) == len(re.findall(r"^\d+\. ", path, re.MULTILINE)) > 0
    for file, name in steps:
        module = (PROJECT_ROOT / file).read_text(encoding="utf-8")
        for part in name.split("."):
            assert re.search(rf"^\s*(?:class|(?:async )?def) {part}\b", module, re.MULTILINE), f"{file} {name}"


def test_the_page_of_webhooks_lists_the_events_that_the_code_sends() -> None:
    text = (PROJECT_ROOT / "docs/webhooks.md").read_text(encoding="utf-8")
    table = text.partition("## Events")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", table, re.MULTILINE)) >= APP_EVENTS
    assert f"`{BUDGET_EVENT}`" in table
    assert f"`{SCALING_EVENT}*`" in table


def test_readme_fits_its_size() -> None:
    assert len((PROJECT_ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize(
    ("call", "request_of"),
    [("responses", ResponseRequest), ("chat completions", ChatRequest), ("completions", CompletionRequest)],
)
def test_the_table_of_openais_fields_says_what_each_call_refuses_and_ignores(
    call: str, request_of: type[OpenAIRequest]
) -> None:
    chapter = API_PAGE.read_text(encoding="utf-8").partition("### What is refused, and what is ignored")[2]
    row = re.search(rf"^\| {call} \|(.*)\|(.*)\|$", chapter, re.MULTILINE)
    assert row is not None
    refused, ignored = (frozenset(re.findall("`(.*?)`", cell)) for cell in row.groups())
    told = {name: field.description or "" for name, field in request_of.model_fields.items()}
    assert refused == request_of.UNSUPPORTED.keys()
    assert ignored == {name for name, text in told.items() if text.startswith("Not acted on")}


def test_the_table_of_lanes_has_each_tier_and_no_call_that_refuses_it() -> None:
    rows = re.findall(r"^\| (.*) \| (?:lane )?`(high|normal|low)`", API_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {tier: lane for cell, lane in rows for tier in re.findall(r"`(\w+)`", cell) if tier in TIER_LANES}
    assert listed == TIER_LANES
    of_chat = ChatRequest.model_json_schema()["properties"]["service_tier"]["anyOf"][0]["enum"]
    assert TIER_LANES.keys() - of_chat == {"ultrafast"}, "the table says that only responses have it"


def test_the_readmes_defaults_are_those_of_the_settings() -> None:
    chapter = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8").partition("## Three defaults")[2]
    stated = re.search(r"in each\s+`web` process, ([\d,]+) calls a minute", chapter)
    assert stated is not None
    fields = Settings.model_fields
    assert int(stated[1].replace(",", "")) == fields["calls_per_minute"].default
    assert f"erased after {fields['keep_texts_days'].default} days" in chapter
