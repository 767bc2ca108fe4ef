"""The fixtures of the core's tests, which pytest finds by their names here."""

from tests.e2e.conftest import *  # noqa: F403
