"""Secrets that survive restarts."""

import stat
from pathlib import Path

from headrace.stack.secret import persistent_secret, write_private


def test_a_secret_is_random_private_and_the_same_the_next_time(tmp_path: Path) -> None:
    first, other = persistent_secret(tmp_path / "a"), persistent_secret(tmp_path / "b")
    assert len(first) >= 32
    assert first != other
    assert persistent_secret(tmp_path / "a") == first
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_secret_whose_file_was_left_empty_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert persistent_secret(tmp_path / "a")


def test_a_private_file_replaces_a_public_one_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
