"""The twenty questions of docs/questions.md: each has a query that an analyst may run, and the answer that it gives."""

import sqlalchemy as sa

from tests.integration.analytics import quarter
from tests.integration.analytics.answers import ASKED, PAGE, QUESTION, answered


def test_each_answer_is_what_the_query_gives(engine: sa.Engine) -> None:
    page = PAGE.read_text(encoding="utf-8")
    with engine.begin() as db:
        quarter.fill(db)

        assert answered(page, db) == page, "run '.venv/bin/python -m tests.integration.analytics.record'"


def test_there_are_twenty_questions_each_with_a_query_and_rows() -> None:
    page = PAGE.read_text(encoding="utf-8")

    questions = QUESTION.findall(page)
    assert [question.partition(".")[0] for question in questions] == [f"## {number}" for number in range(1, 21)]
    answers = [match["answer"] for match in ASKED.finditer(page)]
    assert page.count("```sql") == len(answers) == 20
    assert [answer for answer in answers if answer.endswith("(0 rows)\n")] == []
