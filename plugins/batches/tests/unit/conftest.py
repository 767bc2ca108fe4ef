"""Unit tests open no connection, as in the core."""

from tests.unit.conftest import *  # noqa: F403
