"""A claimed job, for the tests of what a worker decides about one."""

from datetime import UTC, datetime

from headrace.domain.attempts import Claim
from headrace.domain.ids import new_id
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Lane, Overflow, Route

CLAIM = Claim(
    job_id=new_id(),
    attempt=1,
    enqueue_no=1,
    worker_id=new_id(),
    app_id=new_id(),
    end_user=None,
    lane=Lane.LOW,
    pool="fast",
    model="small",
    overflow=Overflow.ALLOW,
    max_cost_usd=None,
    prompt_tokens=5,
    messages=(Message("user", "hi"),),
    sampling=Sampling(8),
    start_by=datetime(2100, 1, 1, tzinfo=UTC),
    finish_by=None,
    has_webhook=False,
    stream=False,
    suspicion=0,
    route=Route.POOL,
)
