"""The questions of docs/questions.md: each has a query that an analyst may run, and the answer that it gives."""

import sqlalchemy as sa

from tests.integration.analytics import economics, quarter
from tests.integration.analytics.answers import ASKED, EXAMPLE, PAGE, QUESTION, answered


def test_each_answer_is_what_the_query_gives(engine: sa.Engine) -> None:
    page = PAGE.read_text(encoding="utf-8")
    with engine.begin() as db:
        quarter.fill(db)

        assert answered(page, db) == page, "run '.venv/bin/python -m tests.integration.analytics.record'"


def test_the_worked_example_is_what_the_queries_give(engine: sa.Engine) -> None:
    page = EXAMPLE.read_text(encoding="utf-8")
    assert len(ASKED.findall(page)) == 3
    with engine.begin() as db:
        economics.fill(db)

        assert answered(page, db) == page, "run '.venv/bin/python -m tests.integration.analytics.record'"
        own = db.execute(sa.text("SELECT avg(usd), avg(full_usd) FROM charges WHERE kind = 'compute'")).one()
        [split] = db.execute(sa.text("SELECT * FROM split_point"))
    prose = " ".join(ASKED.sub("", page).split())
    assert f"its price of {own[0]:.5f} USD" in prose
    assert f"makes that {own[1]:.5f} USD" in prose
    share = split.break_even_requests_per_host_hour / split.most_requests_per_host_hour
    assert f"more than {split.break_even_requests_per_host_hour:.0f} requests an hour, {share:.0%}" in prose.replace(
        " %", "%"
    )
    month_usd = round(split.usd_per_host_hour * 720 + 7000, -3)
    requests = round((split.usd_per_host_hour * 720 + 7000) / split.api_usd_per_request, -4)
    assert f"about {month_usd:,.0f} USD, or {requests:,.0f} requests a month" in prose


def test_the_questions_are_numbered_each_with_a_query_and_rows() -> None:
    page = PAGE.read_text(encoding="utf-8")

    questions = QUESTION.findall(page)
    assert [question.partition(".")[0] for question in questions] == [f"## {number}" for number in range(1, 24)]
    answers = [match["answer"] for match in ASKED.finditer(page)]
    assert page.count("```sql") == len(answers) == 23
    assert [answer for answer in answers if answer.endswith("(0 rows)\n")] == []
