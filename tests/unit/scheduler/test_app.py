"""The control processes' settings: what beat sends, and what a worker may take."""

import pytest
from celery.worker import WorkController

from headrace.domain.queues import AUTOSCALE, CONTROL, OBSERVE
from scheduler.app import app


def test_beat_sends_each_tick_to_the_control_queue_and_lets_it_expire_by_the_next() -> None:
    for name, task in (("observe", OBSERVE), ("autoscale", AUTOSCALE)):
        entry = app.conf.beat_schedule[name]
        assert entry["task"] == task
        assert task in app.tasks
        assert entry["options"] == {"queue": CONTROL, "expires": entry["schedule"]}


def test_a_control_worker_takes_from_no_other_queue_even_when_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.startup.CHECKS", ())
    worker = WorkController(app=app, hostname="control@test", queues=None, pool_cls="solo")
    assert set(worker.app.amqp.queues.consume_from) == {CONTROL}
    assert "chat.high" in worker.app.amqp.queues
