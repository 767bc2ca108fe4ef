import pytest
from celery.exceptions import Ignore, Retry

from headrace.domain.attempts import Outcome
from headrace.domain.states import JobState
from workers.celery.events import JobFailed, JobRevoked, NotHere, show, shown


def test_a_failed_job_is_shown_as_a_failure_with_its_error_code_and_nothing_else() -> None:
    with pytest.raises(JobFailed) as raised:
        show(Outcome(JobState.FAILED, "deadline_exceeded"))
    assert repr(raised.value) == "JobFailed('deadline_exceeded')"


def test_a_job_that_waits_for_another_attempt_is_shown_as_a_retry() -> None:
    with pytest.raises(Retry) as raised:
        show(Outcome(JobState.WAITING, "engine_fault"))
    assert repr(raised.value.exc) == "HandedBack('engine_fault')"


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.EXPIRED])
def test_a_cancelled_or_expired_job_is_shown_as_revoked(state: JobState) -> None:
    with pytest.raises(JobRevoked):
        show(Outcome(state))
    assert issubclass(JobRevoked, Ignore)


def test_a_success_raises_nothing_and_a_job_of_another_process_is_left_to_it() -> None:
    show(Outcome(JobState.SUCCEEDED))
    with pytest.raises(NotHere):
        show(Outcome(JobState.RUNNING))


@pytest.mark.parametrize(
    ("outcome", "exception"),
    [
        (Outcome(JobState.RUNNING), NotHere),
        (Outcome(JobState.CANCELLED), JobRevoked),
        (Outcome(JobState.WAITING, "engine_crash"), Retry),
        (Outcome(JobState.FAILED, "engine_fault"), JobFailed),
    ],
)
def test_celery_is_told_what_its_own_tracer_would_have_returned(outcome: Outcome, exception: type[Exception]) -> None:
    info = shown(outcome)
    assert info is not None
    assert isinstance(getattr(info.exception, "exc", info.exception), exception)
    assert shown(Outcome(JobState.SUCCEEDED)) is None
