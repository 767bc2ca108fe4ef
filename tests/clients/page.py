"""Writes docs/clients.md from the catalogue and the scripts: `bin/headrace python -m tests.clients.page`."""

import re
import textwrap

from headrace.config import PROJECT_ROOT
from tests.clients.catalogue import CLIENTS, COLUMNS, Client

PAGE = PROJECT_ROOT / "docs" / "clients.md"
INTRODUCTION = """# Clients

*Written by `bin/headrace python -m tests.clients.page`. Do not edit.*

Each cell of this table is a test: the unchanged client, in an environment of its own, runs it against a whole system
with the simulator, which [makes JSON up](api.md#json-of-the-simulator) for structured output. `bin/test` runs the
clients in bold, `bin/test --clients` all of them. The environments are made in `.venv/clients` from locks such as those
in `requirements/clients`, once for each change of a lock.

Where the table says `vLLM`, the cell runs with the simulator, and also with the demo's model in vLLM
(`bin/test --clients -k on_vllm`). A model as small as that does not choose well: there the request says whether it is
to call a tool (`tool_choice`), the pool keeps arguments to their schema ([`tool_strict_level`](gpu.md#tools)), and JSON
has [no white space](gpu.md#structured-output-of-small-models). A dash: the client has no such feature, or it is not
tested.

"""
#: What the lines of the scripts call what is Headrace's.
NAMES = """`URL` is the address with `/v1`, such as `http://127.0.0.1:8080/v1`. `KEY` is an app's key. `MODEL` is the
name of a model, as in `GET /v1/models`.
"""
#: The lines of a script that configure its client.
CONFIGURED = re.compile(r"^[ \t]*(?:#|//) configure\n(.*?)^[ \t]*(?:#|//) end$", re.MULTILINE | re.DOTALL)


def page() -> str:
    """The text of the page."""
    names: dict[str, list[str]] = {}
    for client in CLIENTS:
        names.setdefault(section(client), []).append(client.name)
    sections = "\n".join(f"### {', '.join(alike)}\n\n{text}" for text, alike in names.items())
    return f"{INTRODUCTION}{table()}\n## How each is configured\n\n{NAMES}\n{sections}"


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
    """How a client is configured, and what it uses for each cell. Versions of a client may have the same."""
    lines = CONFIGURED.search(client.path.read_text(encoding="utf-8"))
    assert lines is not None, f"{client.script} has no lines between 'configure' and 'end'"
    code = textwrap.dedent(lines[1]).strip("\n")
    uses = "; ".join(f"{COLUMNS[cell]}: {words}" for cell, words in client.cells.items())
    language = "js" if client.runtime == "node" else "python"
    if all(line.startswith("# ") for line in code.splitlines()):
        language, code = "sh", re.sub("^# ", "", code, flags=re.MULTILINE)
    paragraphs = "\n\n".join(map(wrapped, filter(None, (f"{uses}.", client.note))))
    return f"```{language}\n{code}\n```\n\n{paragraphs}\n"


def wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
