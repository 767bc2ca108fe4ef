"""Which error stands for a job without an answer."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.schemas.openai import job_error
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, JobCancelled, JobExpired, JobHeld, JobOverdue, Unanswered


def ended(state: JobState, code: str | None = None, message: str | None = None) -> Job:
    return cast(Job, SimpleNamespace(id=new_id(), state=state, error_code=code, error_message=message))


@pytest.mark.parametrize(
    ("job", "kind", "code", "message"),
    [
        (ended(JobState.CANCELLED), JobCancelled, "job_cancelled", "The job was cancelled before it had an answer."),
        (
            ended(JobState.EXPIRED, "expired", "It could not start within 30 s."),
            JobExpired,
            "expired",
            "It could not start within 30 s. It cost nothing; try again.",
        ),
        (ended(JobState.EXPIRED, "app_confined", "One at a time."), JobHeld, "app_confined", "One at a time."),
        (ended(JobState.FAILED, "deadline_exceeded", "Too late."), JobOverdue, "deadline_exceeded", "Too late."),
        (ended(JobState.FAILED, "prompt_rejected", "Too odd."), InvalidRequest, "prompt_rejected", "Too odd."),
        (ended(JobState.FAILED, "engine_fault", "It broke."), Unanswered, "engine_fault", "It broke."),
        (ended(JobState.FAILED), Unanswered, "job_failed", "The job failed."),
    ],
)
def test_each_end_has_its_error(job: Job, kind: type[Any], code: str, message: str) -> None:
    error = job_error(job)
    assert type(error) is kind
    assert (error.code, str(error), error.job_id) == (code, message, job.id)
