"""A worker, before anything of it is started."""

from typing import Any, cast

import pytest

from headrace.broker.admission import Admission
from headrace.config import PoolSettings, Settings
from headrace.domain.queues import Route
from headrace.errors import ConfigError
from headrace.store import Store
from workers.worker import Hooks, Worker


def test_a_gpu_worker_refuses_a_pool_that_the_paid_api_alone_answers() -> None:
    pool = PoolSettings(model="gpt-4o-mini", engine="openai")
    settings = Settings.load(pools={"mini": pool}, pool="mini", openai_api_key="sk-test")
    parts: Any = (cast(Store, None), cast(Admission, None), Hooks(lambda: None, lambda: None))

    with pytest.raises(ConfigError, match=r"'mini'.*by the overflow worker: set HEADRACE_POOL") as raised:
        Worker(settings, Route.POOL, *parts)

    assert raised.value.param == "pool"
