"""The fixtures of the core's tests, which pytest finds by their names here."""

from tests.integration.scheduler.conftest import *  # noqa: F403
from tests.integration.scheduler.measuring.conftest import *  # noqa: F403
