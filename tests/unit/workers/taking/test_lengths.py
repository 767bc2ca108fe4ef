"""The expected length of an answer: learned from ended ones, guessed while they are few."""

import pytest

from headrace.domain.queues import Lane
from headrace.policies.answers import AnswerLength
from workers.taking import lengths
from workers.taking.lengths import Lengths, by_lane


def learned(*tokens: int) -> Lengths:
    known = Lengths()
    for each in tokens:
        known.learn(each)
    return known


@pytest.mark.parametrize(("more", "chance"), [(16, 0.995), (1200, 0.5), (1584, 0.1), (1600, 0.0), (9999, 0.0)])
def test_while_nothing_has_ended_half_get_to_within_a_quarter_of_the_maximum(more: int, chance: float) -> None:
    guessed = Lengths().alive(0, more, most=1600)
    assert guessed == pytest.approx(chance, abs=0.001)


def test_what_has_ended_decides_once_there_is_much_of_it() -> None:
    known = learned(*[80, 80, 80, 400] * 100)

    assert known.alive(0, 40, most=512) > 0.98
    assert known.alive(0, 200, most=512) == pytest.approx(0.25, abs=0.02)
    assert known.alive(0, 480, most=512) < 0.02


def test_an_answer_that_has_outlived_the_short_ones_is_a_long_one() -> None:
    known = learned(*[80] * 300, *[400] * 100)

    assert known.alive(200, 100, most=512) > 0.95


def test_an_answer_longer_than_all_is_guessed_at() -> None:
    assert learned(*[80] * 300).alive(412, 50, most=512) == pytest.approx(0.5**0.5)


def test_the_maximum_is_never_passed() -> None:
    assert learned(*[400] * 300).alive(50, 50, most=100) == 0.0


def test_the_chance_falls_with_every_further_token() -> None:
    known = learned(*range(1, 600, 7))
    chances = [known.alive(30, more, most=512) for more in range(1, 500)]

    assert chances == sorted(chances, reverse=True)
    assert all(0 <= chance <= 1 for chance in chances)


def test_what_was_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "REMEMBERED", 50)

    changed = learned(*[400] * 100, *[40] * 50)

    assert changed.alive(0, 100, most=512) == pytest.approx(learned(*[40] * 50).alive(0, 100, most=512))


def test_answers_under_way_keep_the_short_ones_that_ended_first_from_being_taken_for_all() -> None:
    hasty, patient = Lengths(), Lengths()
    for _ in range(10):
        hasty.learn(16)
        patient.learn(16, under_way=[200] * 30)

    assert hasty.alive(0, 100, most=512) < 0.4
    assert patient.alive(0, 100, most=512) > 0.75
    assert patient.alive(180, 10, most=512) > 0.95, "none has ended so far out"


def test_what_is_learned_counts_from_when_it_is_news() -> None:
    known, chances = Lengths(), dict[int, float]()
    for _ in range(2000):
        known.learn(80)
        said = known.alive(0, 90, most=512)
        assert chances.setdefault(known.edition, said) == said
    assert 100 < len(chances) < 200, "often at first, then less and less so"


def test_nothing_is_known_to_end_beyond_the_last_that_ended() -> None:
    known = Lengths()
    for _ in range(40):
        known.learn(16, under_way=[104] * 20)

    assert known.alive(100, 300, most=512) > 0.95
    assert known.alive(0, 400, most=512) == pytest.approx(1 / 3, abs=0.05)


def test_each_lane_learns_alone() -> None:
    lanes = by_lane()
    lanes[Lane.HIGH].learn(7)

    assert lanes[Lane.HIGH].alive(0, 50, 100) != lanes[Lane.LOW].alive(0, 50, 100)
    assert set(lanes) == set(Lane)


def test_answers_of_former_days_are_known_from_the_start() -> None:
    lanes = by_lane([AnswerLength(Lane.HIGH, 80, False)] * 300)

    assert lanes[Lane.HIGH].alive(0, 100, most=512) < 0.01
    assert lanes[Lane.LOW].alive(0, 100, most=512) > 0.8


def expected(known: Lengths, most: int) -> float:
    output = known.expected()
    assert output
    return output.within(most)


def test_an_answer_is_expected_to_be_as_long_as_the_others_were() -> None:
    known = learned(*[80, 80, 80, 400] * 100)
    assert expected(known, 8) == pytest.approx(8)
    assert expected(known, 80) == pytest.approx(80, rel=0.05)
    assert expected(known, 2048) == pytest.approx(160, rel=0.06)
    assert Lengths().expected() is None


def test_an_answer_that_its_maximum_ended_could_have_been_longer() -> None:
    known = learned(*[40] * 100)
    for _ in range(100):
        known.learn(80, is_cut=True)
    # Half end at 40; of the others nothing is known to end.
    assert expected(known, 80) == pytest.approx(60, rel=0.05)
    assert expected(known, 480) == pytest.approx((40 + 480) / 2, rel=0.05)
    assert known.alive(80, 100, most=512) == pytest.approx(1.0, abs=0.02)


def test_an_answer_that_was_cut_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "REMEMBERED", 50)
    known = Lengths()
    for tokens, is_cut in [(400, True)] * 50 + [(40, False)] * 50:
        known.learn(tokens, is_cut=is_cut)
    assert expected(known, 400) == pytest.approx(expected(learned(*[40] * 50), 400))
