"""A browser without a screen: Flask's client, which sends a page's token with each form, and what its pages show."""

import html
import re
from collections.abc import Mapping
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

PASSWORD = "correct horse battery"

TOKEN = re.compile(r'name="csrf_token"[^>]* value="([^"]+)"')


class Browser:
    """A Flask client that sends a page's token with each form, as a browser does."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.client.get(f"/ops{path}", **options)

    def post(self, path: str, fields: Mapping[str, Any] | None = None, **options: Any) -> TestResponse:
        """Sends a form with the session's token."""
        return self.client.post(f"/ops{path}", data={"csrf_token": self.token(), **(fields or {})}, **options)

    def token(self) -> str:
        """The token of the forms of this session."""
        for path in ("/ops/apps", "/ops/login"):
            if found := TOKEN.search(self.client.get(path).text):
                return html.unescape(found[1])
        raise AssertionError("no page has a token")

    def log_in(self, name: str, password: str = PASSWORD, back: str = "") -> TestResponse:
        path = f"/login?back={back}" if back else "/login"
        return self.post(path, {"name": name, "password": password})


def rows_of(text: str, label: str) -> list[list[str]]:
    """The cells of a table of a page, row by row."""
    table = text.partition(f'aria-label="{label}"')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table.partition("<tbody>")[2], re.DOTALL)
    return [[plain(cell) for cell in re.split(r"<td[^>]*>", row)[1:]] for row in rows]


def plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())
