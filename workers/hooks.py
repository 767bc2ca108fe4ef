"""What a plugin brings to a worker with an engine: its `worker.py` has `make(core: WorkerCore) -> WorkerPart`."""

from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.domain.queues import Route
from headrace.policies.tokens import PromptTokenizer
from headrace.store import Store
from headrace.sweeper import Sweep
from workers.engines.base import Engine
from workers.running.bill import Bill
from workers.running.execute import BeforeEngine
from workers.running.publisher import Notices
from workers.taking.kv_budget import KvBudget


@dataclass(frozen=True, slots=True)
class WorkerCore:
    """What plugins may use.

    Attributes:
        pool: the pool whose queues it takes from, or `overflow`.
        tokenizer: counts prompts as the engine does. Its first call loads it.
    """

    settings: Settings
    route: Route
    pool: str
    store: Store
    redis: Redis
    admission: Admission
    engine: Engine
    kv_budget: KvBudget
    notices: Notices
    bill: Bill
    tokenizer: Callable[[], PromptTokenizer]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPart:
    """A plugin's part of a worker.

    Attributes:
        before_engine: see `workers.running.execute.BeforeEngine`.
        sweeps: run while the worker does.
        begin: called once the engine has started.
        end: called when the worker stops, after its sweeps and before its engine.
    """

    before_engine: BeforeEngine | None = None
    sweeps: tuple[Sweep, ...] = ()
    begin: Callable[[], object] | None = None
    end: Callable[[], object] | None = None
