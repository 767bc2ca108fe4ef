"""The pages at /ops as an operator's browser asks for them: one login, then pages and pictures, each timed."""

import html
import re
import time
import urllib.request
from http.cookiejar import CookieJar
from urllib.error import HTTPError
from urllib.parse import urlencode

import click

from bed.testbed import Testbed

#: Longer than Postgres may take for one statement, so that an error page is told from silence.
TIMEOUT_S = 60.0
_TOKEN = re.compile(r'name="csrf_token"[^>]* value="([^"]+)"')


class Pages:
    """A session of an operator who may see everything."""

    def __init__(self, bed: Testbed, url: str) -> None:
        """Make the operator, and log in at this process. Raises: ClickException."""
        self._url = f"{url}/ops"
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        name, password = "benchmark", bed.make_operator("benchmark")
        found = _TOKEN.search(self._read("/login"))
        if found is None:
            raise click.ClickException("The login has no token.")
        fields = {"csrf_token": html.unescape(found[1]), "name": name, "password": password}
        if "Log out" not in self._read("/login", urlencode(fields).encode()):
            raise click.ClickException("The login fails.")

    def seconds(self, path: str) -> float:
        """How long a page takes. Raises: ClickException: it is an error, or the login."""
        began = time.perf_counter()
        self._read(path)
        return time.perf_counter() - began

    def _read(self, path: str, form: bytes | None = None) -> str:
        request = urllib.request.Request(f"{self._url}{path}", form)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                text: str = answer.read().decode()
        except HTTPError as error:
            raise click.ClickException(f"/ops{path} answers {error.code}.") from error
        if "/ops/login" in answer.geturl() and path != "/login":
            raise click.ClickException(f"/ops{path} asks for a login.")
        return text
