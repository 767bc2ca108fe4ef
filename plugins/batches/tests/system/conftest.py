"""The fixtures of the core's tests, which pytest finds by their names here."""

from tests.system.conftest import *  # noqa: F403
