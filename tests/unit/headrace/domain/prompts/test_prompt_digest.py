"""What identifies a prompt, also to digests that were stored before a parameter existed."""

from headrace.domain.prompts import Message, Sampling, prompt_digest

HELLO = (Message("user", "Hello"),)


def test_one_answer_has_the_digest_that_it_had_before_there_could_be_several() -> None:
    stored = "c39be77cc25b4387fafc12e413ef24f48a99636c5344c8cdef03c2720bec8289"
    assert prompt_digest("m", HELLO, Sampling(8)).hex() == stored


def test_more_answers_are_another_prompt() -> None:
    digests = {prompt_digest("m", HELLO, Sampling(8, n=n)) for n in (1, 2, 3)}
    assert len(digests) == 3
