"""The Procfile: how it is read, and that ours names what the design names."""

import pytest

from headrace.config import PROJECT_ROOT
from headrace.errors import StackError
from headrace.stack.child import parse_procfile, read_procfile


def test_lines_keep_their_order_and_comments_mean_nothing() -> None:
    text = "# first\n\nweb: serve --port ${PORT:-8000}\n  # second\ngpu:celery -A workers.app:gpu worker\n"
    assert list(parse_procfile(text).items()) == [
        ("web", "serve --port ${PORT:-8000}"),
        ("gpu", "celery -A workers.app:gpu worker"),
    ]


@pytest.mark.parametrize("line", ["web", "web:", "web:   ", "a b: serve", ": serve"])
def test_a_line_that_names_no_process_or_no_command_is_refused(line: str) -> None:
    with pytest.raises(StackError, match="line 2"):
        parse_procfile(f"gpu: work\n{line}\n")


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(StackError, match="two processes named web"):
        parse_procfile("web: one\nweb: two\n")


def test_our_own_procfile_has_every_process_in_boot_order() -> None:
    names = ["release", "web", "ops", "gpu", "overflow", "webhooks", "plugins", "control"]
    names += ["beat", "flower"]
    assert list(read_procfile(PROJECT_ROOT / "Procfile")) == names


def test_a_missing_procfile_is_a_stack_error() -> None:
    with pytest.raises(StackError, match="cannot be read"):
        read_procfile(PROJECT_ROOT / "no-such-file")
