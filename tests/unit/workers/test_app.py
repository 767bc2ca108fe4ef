import pytest
from celery import Celery

from headrace.domain.queues import DELIVER, EXECUTE, OVERFLOW, WEBHOOKS, lane_queues
from workers import app


def own_tasks(celery: Celery) -> set[str]:
    return {name for name in celery.tasks if name.startswith("headrace.")}


@pytest.mark.parametrize(
    ("celery", "queues", "tasks"),
    [
        (app.gpu, lane_queues("chat"), {EXECUTE}),
        (app.overflow, lane_queues(OVERFLOW), {EXECUTE}),
        (app.webhooks, (WEBHOOKS,), {DELIVER}),
    ],
    ids=["gpu", "overflow", "webhooks"],
)
def test_each_role_takes_from_its_queues_and_knows_its_task_alone(
    celery: Celery, queues: tuple[str, ...], tasks: set[str]
) -> None:
    assert tuple(celery.amqp.queues.consume_from) == queues
    assert own_tasks(celery) == tasks


def test_one_roles_task_is_not_another_roles() -> None:
    assert app.gpu.tasks[EXECUTE].app is app.gpu
    assert app.gpu.tasks[EXECUTE].run is not app.overflow.tasks[EXECUTE].run


def test_task_fails_in_the_open_while_there_is_no_engine() -> None:
    with pytest.raises(IndexError):
        app.gpu.tasks[EXECUTE].run("job_" + "0" * 32, 1)
