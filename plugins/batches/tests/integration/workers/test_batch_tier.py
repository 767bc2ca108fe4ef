"""The provider's batch tier, by the real SDK against a stand-in: each line once, whatever dies or is wrong."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from headrace.broker.admission import Admission
from headrace.config import BudgetSettings, Price, Settings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import JobSpec
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Lane, Overflow, Route
from headrace.errors import EngineFault, EngineUnavailable
from headrace.policies.pricing import Tariff, ceiling
from headrace.store import Store
from headrace.store import jobs as jobs_store
from headrace.store.jobs.insertion import insert_batch
from headrace.tables import attempts, budgets, jobs, ledger
from plugins.batches import store as batches
from plugins.batches.batch_tier import APPEARS_WITHIN, HOLD, LONGEST, BatchTier
from plugins.batches.domain import Batch, BatchState, LineState, NewLine, ProviderBatch, ProviderState, noted
from plugins.batches.provider_api import BatchApi
from plugins.batches.store import provider_batches
from plugins.batches.tables import provider_batches as table
from plugins.batches.tests.batch_provider import MORE_TOKENS, BatchProvider
from plugins.bills import store as bills
from scheduler.rescue import Patience
from tests.contracts.conftest import StandIn
from workers.engines.openai.stream import billed
from workers.running.bill import Bill
from workers.running.publisher import Notices

PRICE = Price(
    input_usd_per_mtok=Decimal(10),
    output_usd_per_mtok=Decimal(100),
    tiers={"batch": Decimal("0.5")},
    source="test",
    version="v1",
)
LINES = 4
#: Of one answered line: `Number N?` has 2 tokens, and `echo: Number N?` has 3.
LINE_USD = (2 * PRICE.input_usd_per_mtok + 3 * PRICE.output_usd_per_mtok) / 2 / 1_000_000


def prompt(number: int, more: str = "") -> tuple[Message, ...]:
    return (Message("user", f"Number {number}?{more}"),)


#: What is reserved for a line.
MOST = ceiling(PRICE, prompt(1), Sampling(16), "batch").usd


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    server = StandIn()
    provider = BatchProvider(url=server.url)
    server.also = provider.answer
    yield provider
    server.close()


@pytest.fixture
def make_tier(
    store: Store, settings: Settings, admission: Admission, provider: BatchProvider
) -> Iterator[Callable[..., BatchTier]]:
    made: list[BatchTier] = []

    def make(day_usd: Decimal | None = Decimal(1000)) -> BatchTier:
        """Another overflow worker's."""
        changes: dict[str, Any] = {"openai_api_key": SecretStr("sk-test"), "openai_base_url": provider.url}
        changes |= {"prices": {settings.overflow.model: PRICE}}
        changed = settings.model_copy(update=changes)
        bill = Bill(Tariff.of(changed), Route.OVERFLOW, "host")
        notices = Notices(admission, ThreadPoolExecutor(1))
        limits = BudgetSettings(day_usd=day_usd)
        made.append(BatchTier(store, BatchApi(changed), notices, bill, limits, (), poll_s=1, lease_s=60))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def tier(make_tier: Callable[..., BatchTier]) -> BatchTier:
    return make_tier()


@pytest.fixture
def gathered(store: Store, app: App, make_spec: Callable[..., JobSpec]) -> Callable[..., Batch]:
    """A batch of `LINES` lines, all of which are gathered for the provider."""

    def make(
        lines: int = LINES,
        until_s: float = 3600,
        overflow: Overflow = Overflow.ALLOW,
        more: str = "",
        **changes: Any,
    ) -> Batch:
        runner = new_id()
        given = {"endpoint": "/v1/chat/completions", "input_file_id": new_id(), "completion_window": "24h"}
        with store.begin() as db:
            batch = batches.create(db, app.id, window_s=86_400, most_open=50, overflow=overflow, **given)
            batches.lease(db, runner, 60)
            new = [NewLine(number, f"line-{number}", "", "{}") for number in range(1, lines + 1)]
            batches.put_lines(db, batch.id, runner, new)
            batches.begin(db, batch.id, runner, lines, "test-model")
            taken = provider_batches.take_lines(db, batch.id, "test-model", lines)
        place = Candidate("chat.batch", 0, 0, None, "test")
        until = datetime.now(UTC) + timedelta(seconds=until_s)
        given = {"lane": Lane.BATCH, "not_before": until, "max_wait_s": 80_000.0, "overflow": overflow, **changes}
        specs = [
            make_spec(
                id=line.job_id,
                messages=prompt(line.number, more),
                notes=noted(batch.id),
                **given,
            )
            for line in taken
            if line.job_id is not None
        ]
        insert_batch(store, [(spec, place) for spec in specs])
        with store.begin() as db:
            provider_batches.close(db, batch.id)
            return batches.find(db, app.id, batch.id)

    return make


def go(tier: BatchTier, *steps: Callable[[], int]) -> None:
    for step in steps or (tier.send, tier.read, tier.read):
        tier.lease()
        step()


@pytest.fixture
def rows(store: Store) -> Callable[[sa.Table], list[sa.Row[Any]]]:
    """The rows of a table, in the order of their ids."""

    def read(of: sa.Table) -> list[sa.Row[Any]]:
        with store.begin() as db:
            return list(db.execute(sa.select(of).order_by(*of.primary_key.columns)))

    return read


@pytest.fixture
def money(rows: Callable[[sa.Table], list[sa.Row[Any]]]) -> Callable[[], tuple[Decimal, Decimal, Decimal]]:
    """Reserved and spent, by each account alike; and the sum of the ledger."""

    def read() -> tuple[Decimal, Decimal, Decimal]:
        accounts = rows(budgets)
        [reserved] = {row.reserved_usd for row in accounts} or {Decimal(0)}
        [spent] = {row.spent_usd for row in accounts} or {Decimal(0)}
        return reserved, spent, sum((row.usd for row in rows(ledger)), Decimal(0))

    return read


def states(rows: Callable[[sa.Table], list[sa.Row[Any]]]) -> list[str]:
    return [row.state for row in rows(jobs)]


def billed_usd(provider: BatchProvider) -> Decimal:
    """The provider's own bill."""
    prompt_tokens, output_tokens = provider.billed
    usd = prompt_tokens * PRICE.input_usd_per_mtok + output_tokens * PRICE.output_usd_per_mtok
    return usd / 2 / 1_000_000


def test_lines_go_as_one_file_and_each_answer_is_written_and_paid_once(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, money: Any, store: Store
) -> None:
    batch = gathered()
    go(tier, tier.send)
    assert states(rows) == ["running"] * LINES
    assert money() == (MOST * LINES, 0, 0), "reserved at the tier's price before the file goes up"
    assert provider.calls.count("POST /v1/files") == provider.calls.count("POST /v1/batches") == 1

    go(tier, tier.read, tier.read)
    assert states(rows) == ["succeeded"] * LINES
    assert money() == (0, LINE_USD * LINES, LINE_USD * LINES)
    assert billed_usd(provider) == LINE_USD * LINES
    assert {(row.kind, row.price_version, row.usd) for row in rows(ledger)} == {("api", "v1/batch", LINE_USD)}
    assert {(row.route, row.queue, row.attempt) for row in rows(jobs)} == {("overflow", "chat.batch", 1)}
    [row] = rows(table)
    assert (row.state, row.lines, row.answered, row.unreturned_usd, row.error) == ("ended", LINES, LINES, 0, None)
    assert not provider.files, "its files are deleted there"
    with store.begin() as db:
        assert batches.settle(db, batch.id, batch.endpoint, is_cancelling=False) == LINES


def test_the_cap_of_a_budget_holds_and_the_lines_beyond_it_go_to_their_own_queue(
    make_tier: Any, gathered: Any, provider: BatchProvider, rows: Any, money: Any
) -> None:
    gathered()
    tier = make_tier(day_usd=MOST * 2)
    go(tier, tier.send)
    found = rows(jobs)
    assert sorted(row.state for row in found) == ["running", "running", "waiting", "waiting"]
    assert {(row.queue, row.route, row.attempt, row.started_at) for row in found if row.state == "waiting"} == {
        ("chat.batch", "pool", 0, None)
    }
    assert money() == (MOST * 2, 0, 0)
    go(tier, tier.read)
    assert money()[0] == 0


def test_a_model_without_a_price_of_the_tier_is_not_sent(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any
) -> None:
    tier.bill.tariff = Tariff({}, {}, {}, "gpt-4o-mini", frozenset())
    gathered()
    go(tier, tier.send)
    assert states(rows) == ["waiting"] * LINES
    assert not provider.calls
    assert rows(table)[0].state == "ended"


@pytest.mark.parametrize(
    ("fault", "ends"),
    [
        ("expires", ["succeeded", "succeeded", "waiting", "waiting"]),
        ("fails", ["waiting"] * 4),
        ("fails_in_part", ["waiting", "succeeded", "succeeded", "succeeded"]),
        ("rejects", ["failed", "succeeded", "succeeded", "succeeded"]),
        ("drops", ["waiting", "succeeded", "succeeded", "succeeded"]),
        ("twice", ["succeeded"] * 4),
        ("unknown", ["succeeded"] * 4),
        ("bills_more", ["succeeded"] * 4),
        ("malformed", ["waiting", "succeeded", "succeeded", "succeeded"]),
        ("garbage", ["succeeded"] * 4),
    ],
)
@pytest.mark.parametrize("has_totals", [True, False], ids=["totals", "no_totals"])
def test_each_line_ends_right_and_the_ledger_has_all_that_the_provider_billed(
    fault: str,
    ends: list[str],
    has_totals: bool,
    tier: BatchTier,
    gathered: Any,
    provider: BatchProvider,
    rows: Any,
    money: Any,
) -> None:
    provider.faults, provider.has_totals = {fault}, has_totals
    gathered()
    go(tier)
    assert states(rows) == ends
    back = [row for row in rows(jobs) if row.state == "waiting"]
    assert all(row.route_reason.startswith("back from the provider's batch tier: engine_") for row in back)
    assert {(row.queue, row.route, row.attempt) for row in back} <= {("chat.batch", "pool", 0)}
    [row] = rows(table)
    assert (row.state, row.answered) == ("ended", ends.count("succeeded"))
    reserved_usd, spent_usd, booked_usd = money()
    assert reserved_usd == 0
    assert spent_usd == booked_usd
    charged = [entry for entry in rows(ledger) if entry.kind == "api"]
    assert len(charged) == len({entry.job_id for entry in charged}) == ends.count("succeeded")
    with tier.store.begin() as db:
        day = {"since": datetime.now(UTC) - timedelta(days=1), "until": datetime.now(UTC) + timedelta(days=1)}
        compared = sum(row.usd for row in db.execute(bills._API, day))
    assert compared == booked_usd, "a bill of the provider is compared with all of it"
    if has_totals:
        assert booked_usd == billed_usd(provider)
    else:
        unseen_usd = MORE_TOKENS * PRICE.output_usd_per_mtok / 2 / 1_000_000 if fault == "bills_more" else 0
        assert booked_usd >= billed_usd(provider) - unseen_usd


def test_what_it_billed_and_did_not_return_is_the_waste_of_the_batchs_app(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, app: App
) -> None:
    provider.faults = {"bills_more"}
    gathered()
    go(tier)
    [waste] = [entry for entry in rows(ledger) if entry.kind == "waste"]
    usd = MORE_TOKENS * PRICE.output_usd_per_mtok / 2 / 1_000_000
    assert (waste.app_id, waste.job_id, waste.output_tokens, waste.usd) == (app.id, None, MORE_TOKENS, usd)
    assert (waste.reason, waste.price_version, waste.model) == ("unreturned", "v1/batch", "gpt-4o-mini")
    assert rows(table)[0].unreturned_usd == usd


def test_a_result_ends_at_a_line_feed_alone(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, money: Any
) -> None:
    gathered(more=" One\u2028two\u2029three\x85four")
    go(tier)
    assert states(rows) == ["succeeded"] * LINES
    assert money()[2] == billed_usd(provider)
    assert provider.calls.count("POST /v1/batches") == 1


class Died(Exception):
    """The worker's death."""


def dies_after(tier: BatchTier, patch: pytest.MonkeyPatch, where: Any, name: str, times: int = 1) -> None:
    """Has a step of the worker be its last: it takes effect, and the worker dies before it hears of it."""
    step, done = getattr(where, name), []

    def last(*arguments: Any, **options: Any) -> Any:
        answer = step(*arguments, **options)
        done.append(answer)
        if len(done) >= times:
            raise Died
        return answer

    patch.setattr(where, name, last)


def takes_over(tier: BatchTier, make_tier: Callable[..., BatchTier], store: Store, patch: pytest.MonkeyPatch) -> None:
    """The worker is gone; another one goes on once its lease has ended."""
    patch.undo()
    other = make_tier()
    go(other, other.send)
    assert other._mine == [], "the lease holds"
    with store.begin() as db:
        db.execute(sa.update(table).values(lease_until=sa.func.now() - timedelta(seconds=1)))
    go(other)


@pytest.mark.parametrize(
    ("where", "name", "step"),
    [
        ("api", "upload", "send"),  # The file is up, and not recorded.
        ("tier", "_upload", "send"),  # The file is up and recorded, and the batch is not made.
        ("api", "create", "send"),  # The batch is made, and not recorded.
        ("tier", "_settle_page", "read"),  # The answers are read and settled, and the end is not recorded.
        ("tier", "_settle", "read"),  # All is settled, and the files are not deleted.
    ],
    ids=["file_up", "file_recorded", "batch_made", "lines_settled", "settled"],
)
def test_whatever_a_worker_died_in_the_next_one_goes_on_and_nothing_runs_twice(
    where: str,
    name: str,
    step: str,
    make_tier: Any,
    gathered: Any,
    provider: BatchProvider,
    rows: Any,
    money: Any,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tier = make_tier()
    gathered()
    if step == "read":
        go(tier, tier.send)
    with monkeypatch.context() as patch:
        dies_after(tier, patch, tier.api if where == "api" else BatchTier, name)
        with pytest.raises(Died):
            go(tier, getattr(tier, step))
        takes_over(tier, make_tier, store, patch)
    assert states(rows) == ["succeeded"] * LINES
    assert provider.calls.count("POST /v1/files") == provider.calls.count("POST /v1/batches") == 1
    assert money() == (0, LINE_USD * LINES, LINE_USD * LINES)
    assert billed_usd(provider) == LINE_USD * LINES
    assert not provider.files
    assert rows(table)[0].state == "ended"


def test_a_worker_that_dies_while_it_reserves_leaves_no_line_without_its_money(
    make_tier: Any,
    gathered: Any,
    rows: Any,
    money: Any,
    store: Store,
    provider: BatchProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tier = make_tier()
    gathered()
    monkeypatch.setattr(provider_batches, "CLAIM_ROWS", 2)
    with monkeypatch.context() as patch:
        dies_after(tier, patch, BatchTier, "_reserve_some")
        with pytest.raises(Died):
            go(tier, tier.send)
        assert sorted(states(rows)) == ["running", "running", "waiting", "waiting"]
        assert money()[0] == 2 * MOST
        takes_over(tier, make_tier, store, patch)
    assert states(rows) == ["succeeded"] * LINES
    assert money() == (0, LINE_USD * LINES, LINE_USD * LINES)


def test_a_worker_that_lost_its_lease_makes_the_only_batch(
    make_tier: Any,
    gathered: Any,
    provider: BatchProvider,
    rows: Any,
    money: Any,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late, other = make_tier(), make_tier()
    gathered()
    create = late.api.create

    def stalls(name: str, file_id: str) -> Any:
        """Between its look and its call, another worker takes over, and looks for what this one makes."""
        with store.begin() as db:
            db.execute(sa.update(table).values(lease_until=sa.func.now() - timedelta(seconds=1)))
        go(other, other.send)
        return create(name, file_id)

    monkeypatch.setattr(late.api, "create", stalls)
    go(late, late.send)
    assert rows(table)[0].state == "uploaded"
    go(other)
    assert len(provider.batches) == 1
    assert states(rows) == ["succeeded"] * LINES
    assert money()[0] == 0


@pytest.fixture
def unanswered(tier: BatchTier, provider: BatchProvider, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sends a batch that the provider makes, does not list yet, and gives no answer about."""
    create = tier.api.create

    def send() -> None:
        def loses(*given: str) -> Any:
            provider.hidden.add(create(*given).provider_id)
            raise billed(EngineFault("The paid API did not answer: APITimeoutError."))

        with monkeypatch.context() as patch:
            patch.setattr(tier.api, "create", loses)
            go(tier, tier.send)

    return send


@pytest.fixture
def does_not_appear(store: Store) -> Callable[[], None]:
    """Ages the row past the time in which the batch could appear."""

    def end() -> None:
        with store.begin() as db:
            db.execute(sa.update(table).values(asked_at=sa.func.now() - APPEARS_WITHIN))

    return end


@pytest.fixture
def given_up(
    tier: BatchTier, gathered: Any, unanswered: Any, does_not_appear: Any, store: Store, app: App
) -> Callable[[], None]:
    """Gives a batch up that the provider has made without an answer: its lines are cancelled."""

    def make() -> None:
        batch = gathered()
        unanswered()
        with store.begin() as db:
            batches.cancel(db, app.id, batch.id)
        go(tier, tier.send)
        does_not_appear()
        go(tier, tier.send, tier.read)

    return make


@pytest.fixture
def hold_passes(store: Store) -> Callable[[], None]:
    """Ages the row by `HOLD` since the provider was asked."""

    def pass_by() -> None:
        with store.begin() as db:
            db.execute(sa.update(table).values(asked_at=sa.func.now() - HOLD))

    return pass_by


def test_one_whose_create_had_no_answer_is_looked_for_before_another_is_made(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, money: Any, unanswered: Any
) -> None:
    gathered()
    unanswered()
    go(tier, tier.send, tier.send)
    assert provider.calls.count("POST /v1/batches") == 1
    provider.hidden.clear()
    go(tier)
    assert states(rows) == ["succeeded"] * LINES
    assert provider.calls.count("POST /v1/batches") == 1
    assert money() == (0, LINE_USD * LINES, LINE_USD * LINES)
    assert billed_usd(provider) == LINE_USD * LINES


def test_a_second_one_is_cancelled_and_what_it_cost_is_booked(
    tier: BatchTier,
    gathered: Any,
    provider: BatchProvider,
    rows: Any,
    money: Any,
    unanswered: Any,
    does_not_appear: Any,
) -> None:
    provider.is_held = True
    gathered()
    unanswered()
    does_not_appear()
    go(tier, tier.send)
    first, second = provider.batches.values()
    assert first["input_file_id"] not in provider.files, "one that is made even later fails"
    assert [row.provider_id for row in rows(table)] == [second["id"]]

    provider.hidden.clear()
    provider.is_held = False
    go(tier, tier.read)
    assert first["status"] == "cancelling"
    assert second["status"] == "completed"
    assert states(rows) == ["running"] * LINES
    go(tier, tier.read, tier.read)
    assert states(rows) == ["succeeded"] * LINES
    assert billed_usd(provider) == LINE_USD * (LINES + 1), "it had answered a line"
    assert money() == (0, billed_usd(provider), billed_usd(provider))
    [row] = rows(table)
    assert (row.state, row.answered, row.unreturned_usd) == ("ended", LINES, LINE_USD)
    assert not provider.files


def test_one_that_appears_after_it_was_given_up_is_cancelled_and_what_it_cost_is_booked(
    tier: BatchTier,
    gathered: Any,
    provider: BatchProvider,
    rows: Any,
    money: Any,
    unanswered: Any,
    does_not_appear: Any,
    hold_passes: Any,
    store: Store,
    app: App,
) -> None:
    batch = gathered()
    unanswered()
    with store.begin() as db:
        batches.cancel(db, app.id, batch.id)
    go(tier, tier.send)
    assert rows(table)[0].state == "uploaded", "it may run, so it is looked for"
    does_not_appear()
    go(tier, tier.send, tier.read)
    assert rows(table)[0].state == "settled"
    assert not provider.files

    provider.hidden.clear()
    go(tier, tier.read)
    [late] = provider.batches.values()
    assert late["status"] == "cancelling"
    hold_passes()
    go(tier, tier.read)
    [row] = rows(table)
    assert (row.state, row.unreturned_usd) == ("ended", billed_usd(provider))
    assert money() == (0, LINE_USD, LINE_USD)
    assert not provider.files


def test_one_that_was_given_up_is_watched_while_the_provider_does_not_list_it(
    tier: BatchTier,
    provider: BatchProvider,
    rows: Any,
    given_up: Any,
    hold_passes: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_up()
    hold_passes()

    def refuse(*_: object) -> None:
        raise EngineUnavailable("The key is locked out.")

    with monkeypatch.context() as patch:
        patch.setattr(type(tier.api), "find_batches", refuse)
        go(tier, tier.read)
    assert rows(table)[0].state == "settled"

    provider.hidden.clear()
    go(tier, tier.read)
    [late] = provider.batches.values()
    assert late["status"] == "cancelling"


def test_one_that_may_appear_is_watched_while_the_key_may_not_delete_files(
    tier: BatchTier,
    gathered: Any,
    provider: BatchProvider,
    rows: Any,
    unanswered: Any,
    does_not_appear: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathered()
    unanswered()
    does_not_appear()
    with monkeypatch.context() as patch:
        patch.setattr(provider, "_create", lambda _: (401, {"error": {"message": "no", "code": "locked"}}))
        go(tier, tier.send, tier.send)
    deleted = list[str]()

    def refuse(_: object, file_id: str) -> None:
        deleted.append(file_id)
        raise EngineUnavailable("The key may not delete.")

    with monkeypatch.context() as patch:
        patch.setattr(type(tier.api), "delete", refuse)
        go(tier, tier.read)
    assert deleted
    assert rows(table)[0].state == "settled"
    provider.hidden.clear()
    go(tier, tier.read)
    assert [each["status"] for each in provider.batches.values()] == ["cancelling"]


def test_one_that_ended_is_booked_once_its_results_can_be_read(
    tier: BatchTier,
    provider: BatchProvider,
    rows: Any,
    given_up: Any,
    hold_passes: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider.has_totals = False
    given_up()
    provider.hidden.clear()
    go(tier, tier.read)
    hold_passes()
    asked = list[str]()

    def refuse(_: object, file_id: str) -> Any:
        asked.append(file_id)
        raise EngineUnavailable("The key is locked out.")

    with monkeypatch.context() as patch:
        patch.setattr(type(tier.api), "results", refuse)
        go(tier, tier.read, tier.read)
    assert asked
    go(tier, tier.read)
    [row] = rows(table)
    assert (row.state, row.unreturned_usd) == ("ended", billed_usd(provider))


@pytest.mark.parametrize(("status", "calls"), [(503, 2), (500, 1)])
def test_only_one_that_was_surely_not_made_is_asked_for_again_at_once(
    status: int, calls: int, tier: BatchTier, gathered: Any, provider: BatchProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered()
    create = provider._create
    with monkeypatch.context() as patch:
        patch.setattr(provider, "_create", lambda _: (status, {"error": {"message": "no", "code": "away"}}))
        go(tier, tier.send)
    assert provider._create == create
    go(tier, tier.send)
    assert provider.calls.count("POST /v1/batches") == calls


def test_rescue_leaves_the_jobs_at_the_provider_alone(
    tier: BatchTier, gathered: Any, rows: Any, store: Store, provider: BatchProvider
) -> None:
    provider.is_held = True
    gathered()
    go(tier, tier.send, tier.read)
    assert Patience(0).good_query()
    with store.begin() as db:
        assert jobs_store.orphans(db) == []
    assert states(rows) == ["running"] * LINES
    [row] = rows(table)
    assert (row.state, row.status) == ("sent", "in_progress")
    assert row.checked_at is not None


def test_a_cancel_cancels_the_providers_batch_and_keeps_what_it_has_answered(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, money: Any, store: Store, app: App
) -> None:
    provider.is_held = True
    batch = gathered()
    go(tier, tier.send)
    with store.begin() as db:
        batches.cancel(db, app.id, batch.id)
        for job_id in batches.submitted_jobs(db, batch.id):
            jobs_store.cancel(db, app.id, job_id)
    go(tier, tier.read)
    assert [each["status"] for each in provider.batches.values()] == ["cancelling"]
    go(tier, tier.read)
    assert sorted(states(rows)) == ["cancelled", "cancelled", "cancelled", "succeeded"]
    assert provider.calls.count("POST /v1/batches/batch-0002/cancel") == 1
    assert money() == (0, LINE_USD, LINE_USD)
    with store.begin() as db:
        assert batches.settle(db, batch.id, batch.endpoint, is_cancelling=True) == LINES
        assert batches.line_states(db, batch.id) == {LineState.SUCCEEDED: 1, LineState.CANCELLED: 3}


@pytest.mark.parametrize("state", [ProviderState.READY, ProviderState.RESERVED, ProviderState.UPLOADED])
def test_a_batch_that_is_cancelled_before_it_is_sent_is_not_sent(
    state: ProviderState,
    tier: BatchTier,
    gathered: Any,
    provider: BatchProvider,
    rows: Any,
    money: Any,
    store: Store,
    app: App,
) -> None:
    batch = gathered()
    tier.lease()
    [at] = tier._mine
    while at.state is not state:
        found = tier._step(at)
        assert found is not None
        at = found
    with store.begin() as db:
        batches.cancel(db, app.id, batch.id)
        for job_id in batches.submitted_jobs(db, batch.id):
            jobs_store.cancel(db, app.id, job_id)
    go(tier, tier.send, tier.read)
    assert states(rows) == ["cancelled"] * LINES
    assert "POST /v1/batches" not in provider.calls
    assert not provider.files
    assert money()[0] == 0
    assert rows(table)[0].state == "ended"


@pytest.mark.parametrize("status", [401, 404])
def test_a_provider_that_refuses_the_account_or_has_no_batches_gets_no_line(
    status: int, tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, money: Any
) -> None:
    provider.is_away = status
    gathered()
    go(tier)
    assert states(rows) == ["waiting"] * LINES
    assert {(row.queue, row.attempt) for row in rows(jobs)} == {("chat.batch", 0)}
    assert money() == (0, 0, 0)
    assert rows(table)[0].state == "ended"
    assert rows(attempts) == []


def test_one_that_may_have_been_made_is_not_given_up_while_the_provider_refuses_the_account(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, money: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to its create is lost, and then the key is refused for a while."""
    gathered()
    create = tier.api.create

    def loses(*given: str) -> Any:
        create(*given)
        provider.is_away = 401
        raise billed(EngineFault("The paid API did not answer."))

    with monkeypatch.context() as patch:
        patch.setattr(tier.api, "create", loses)
        go(tier, tier.send)
    go(tier, tier.send)
    assert states(rows) == ["running"] * LINES
    provider.is_away = None
    go(tier)
    assert states(rows) == ["succeeded"] * LINES
    assert provider.calls.count("POST /v1/batches") == 1
    assert money() == (0, LINE_USD * LINES, LINE_USD * LINES)


def test_one_that_cannot_be_moved_on_holds_up_no_other(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered()
    gathered()
    tier.lease()
    first = tier._mine[0].id
    step = BatchTier._step

    def breaks(self: BatchTier, batch: ProviderBatch) -> ProviderBatch | None:
        if batch.id == first:
            raise ZeroDivisionError
        return step(self, batch)

    monkeypatch.setattr(BatchTier, "_step", breaks)
    with pytest.raises(ZeroDivisionError):
        tier.send()
    assert sorted(row.state for row in rows(table)) == ["ready", "sent"]


def test_a_provider_that_is_away_is_tried_again_for_an_hour(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, store: Store
) -> None:
    provider.is_away = 503
    gathered()
    go(tier, tier.send)
    assert states(rows) == ["running"] * LINES
    provider.is_away = None
    with store.begin() as db:
        db.execute(sa.update(table).values(created_at=sa.func.now() - timedelta(hours=2)))
    go(tier, tier.send)
    assert states(rows) == ["waiting"] * LINES
    assert provider.batches == {}


def test_one_without_a_last_word_is_given_up_and_counts_as_spent(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, money: Any, store: Store
) -> None:
    provider.is_held = True
    gathered()
    go(tier, tier.send, tier.read)
    with store.begin() as db:
        db.execute(sa.update(table).values(sent_at=sa.func.now() - LONGEST))
    go(tier, tier.read)
    assert states(rows) == ["waiting"] * LINES
    assert money() == (0, MOST * LINES, MOST * LINES)
    assert {(row.kind, row.estimated) for row in rows(ledger)} == {("waste", True)}


def test_a_job_with_a_deadline_or_whose_time_has_come_is_left_to_its_own_queue(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, store: Store
) -> None:
    gathered(until_s=-1)
    gathered(deadline=datetime.now(UTC) + timedelta(hours=30))
    go(tier, tier.send)
    assert states(rows) == ["waiting"] * LINES * 2
    assert not provider.calls


def test_lines_that_only_the_paid_api_may_answer_go_back_to_its_queue(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any
) -> None:
    provider.faults = {"fails"}
    gathered(overflow=Overflow.ONLY)
    go(tier)
    assert {(row.state, row.queue, row.route) for row in rows(jobs)} == {("waiting", "overflow.batch", "overflow")}


def test_one_that_nothing_gathers_any_more_ends_and_its_lines_go_to_their_own_queue(
    tier: BatchTier, gathered: Any, provider: BatchProvider, rows: Any, store: Store
) -> None:
    gathered()
    with store.begin() as db:
        db.execute(sa.update(table).values(state="gathering"))
    go(tier, tier.send)
    assert rows(table)[0].state == "gathering"
    with store.begin() as db:
        db.execute(sa.update(table).values(created_at=sa.func.now() - timedelta(minutes=61)))
    go(tier)
    assert states(rows) == ["waiting"] * LINES
    assert rows(table)[0].state == "ended"
    assert not provider.batches


def test_it_tells_the_states_of_all_and_the_age_of_the_oldest(tier: BatchTier, gathered: Any, store: Store) -> None:
    with store.begin() as db:
        assert provider_batches.under_way(db).oldest_s == 0
    gathered()
    with store.begin() as db:
        db.execute(sa.update(table).values(created_at=sa.func.now() - timedelta(hours=3)))
        found = provider_batches.under_way(db)
    assert found.counts[ProviderState.READY] == 1
    assert 3 * 3600 <= found.oldest_s < 3 * 3600 + 60


def test_a_batch_in_progress_stays_so_while_its_lines_are_there(gathered: Any, store: Store, app: App) -> None:
    batch = gathered()
    with store.begin() as db:
        batches.begin_end(db, batch.id)
        assert batches.find(db, app.id, batch.id).state is BatchState.IN_PROGRESS
        assert provider_batches.lines_at_provider(db, [batch.id, UUID(int=1)]) == {batch.id: LINES}
