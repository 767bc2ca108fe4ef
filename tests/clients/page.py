"""Writes docs/clients.md from the catalogue and the scripts: `bin/headrace python -m tests.clients.page`."""

import re
import subprocess
import sys
import textwrap

from headrace.config import PROJECT_ROOT
from tests.clients.catalogue import CLIENTS, COLUMNS, EXAMPLES, Client

PAGE = PROJECT_ROOT / "docs" / "clients.md"
INTRODUCTION = """# Clients

*Written by `bin/headrace python -m tests.clients.page`. Do not edit.*

Headrace serves OpenAI's API, so a client that takes a base URL works unchanged. For each client, this page has the
lines to copy, which run as tests. [What else is tested](#what-is-tested) is at the end.

`URL` is the address with `/v1`, such as `http://127.0.0.1:8000/v1`. `KEY` is an app's key. `MODEL` is the name of a
model, as in `GET /v1/models`. Tools need a model that calls them ([gpu.md](gpu.md#tools)); the simulator does.

"""
TESTED = """## What is tested

Each cell of this table is a test: the unchanged client, in an environment of its own, runs it against a whole system
with the simulator, which [makes JSON up](api.md#what-the-simulator-answers) for structured output. `bin/test` runs the
clients in bold, `bin/test --clients` all of them.

Where the table says `vLLM`, the cell also runs with the demo's model in vLLM (`bin/test --clients -k on_vllm`). A model
as small as that does not choose well: there the request says whether it is to call a tool (`tool_choice`), the pool
keeps arguments to their schema ([`tool_strict_level`](gpu.md#tools)), and JSON has
[no white space](gpu.md#structured-output-of-small-models). A dash: not tested.

"""
#: The lines of a script that configure its client.
CONFIGURED = re.compile(r"^[ \t]*(?:#|//) configure\n(.*?)^[ \t]*(?:#|//) end$", re.MULTILINE | re.DOTALL)
#: The lines of an example.
EXAMPLE = re.compile(r"^[ \t]*(?:#|//) example: (\w+)\n(.*?)^[ \t]*(?:#|//) end$", re.MULTILINE | re.DOTALL)


def page() -> str:
    """The text of the page."""
    names: dict[str, list[str]] = {}
    for client in CLIENTS:
        names.setdefault(section(client), []).append(client.name)
    sections = "".join(f"## {', '.join(alike)}\n\n{text}" for text, alike in names.items())
    contents = "\n".join(f"- [{', '.join(alike)}](#{anchor(', '.join(alike))})" for alike in names.values())
    return formatted(f"{INTRODUCTION}{contents}\n\n{sections}{TESTED}{table()}")


def formatted(text: str) -> str:
    """The page with its code as `ruff format` has it: in a script's function, two blank lines are one."""
    words = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PAGE), "-"]
    return subprocess.run(words, input=text, capture_output=True, text=True, check=True, cwd=PROJECT_ROOT).stdout


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def table() -> str:
    rows = [("client", *COLUMNS.values()), ("---",) * (1 + len(COLUMNS))]
    for client in CLIENTS:
        name = f"**{client.name}**" if client.is_light else client.name
        rows.append((name, *(shown(client, cell) for cell in COLUMNS)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def shown(client: Client, cell: str) -> str:
    """On which engines the cell runs."""
    if cell in client.on_vllm:
        return "vLLM"
    return "yes" if cell in client.cells else "-"


def section(client: Client) -> str:
    """A client's lines, its examples, and its note. Versions of a client may have the same."""
    script = client.path.read_text(encoding="utf-8")
    lines = CONFIGURED.search(script)
    assert lines is not None, f"{client.script} has no lines between 'configure' and 'end'"
    language = "js" if client.runtime == "node" else "python"
    code = textwrap.dedent(lines[1]).strip("\n")
    if all(line.startswith("# ") for line in code.splitlines()):
        language, code = "sh", re.sub("^# ", "", code, flags=re.MULTILINE)
    examples = "".join(
        f"{EXAMPLES[name]}:\n\n```{language}\n{shown_lines(text)}\n```\n\n" for name, text in EXAMPLE.findall(script)
    )
    note = f"{wrapped(client.note)}\n\n" if client.note else ""
    return f"```{language}\n{code}\n```\n\n{examples}{note}"


def shown_lines(text: str) -> str:
    """The lines of an example as a reader copies them. A function of JavaScript has its imports as comments."""
    return re.sub(r"^// import", "import", textwrap.dedent(text).strip("\n"), flags=re.MULTILINE)


def wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
