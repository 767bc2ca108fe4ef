"""Operators' passwords."""

import pytest

from headrace.errors import InvalidRequest
from headrace.policies import passwords

PASSWORD = "correct horse battery"


def test_a_password_matches_its_hash_alone() -> None:
    stored = passwords.hashed(PASSWORD)
    assert passwords.matches(PASSWORD, stored)
    assert not passwords.matches(f"{PASSWORD} ", stored)
    assert not passwords.matches("", stored)
    assert not passwords.matches("\ud800", stored)


def test_equal_passwords_have_different_hashes() -> None:
    assert passwords.hashed(PASSWORD) != passwords.hashed(PASSWORD)


def test_a_hash_names_its_cost_and_shows_no_password() -> None:
    stored = passwords.hashed(PASSWORD)
    assert stored.startswith("scrypt$32768:8:3$")
    assert PASSWORD not in stored


@pytest.mark.parametrize("password", ["", "x" * 11, "x" * 201])
def test_a_password_is_neither_short_nor_long(password: str) -> None:
    with pytest.raises(InvalidRequest, match="12 to 200"):
        passwords.hashed(password)


def test_random_passwords_differ_and_are_long_enough() -> None:
    made = {passwords.random_password() for _ in range(20)}
    assert len(made) == 20
    assert {len(each) for each in made} == {24}
