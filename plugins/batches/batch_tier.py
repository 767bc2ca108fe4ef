"""The provider's batch tier: sends lines of batches to the provider as batches of its own, and settles their answers.

Runs in overflow workers. Each provider's batch has a lease, so that one worker at a time moves it on. Every step is
safe to repeat after a worker that died in it: the provider is asked for the file and the batch by their name before
either is made, and a line whose job no longer runs there has been settled.

A batch whose creation is uncertain, because the call had no answer, is looked for before it is asked for again. If two
appear all the same, the surplus one is cancelled, and what it cost is booked with what the other one did not return.
"""

import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from itertools import islice
from uuid import UUID

from sqlalchemy import Connection

from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.ids import new_id
from headrace.domain.limits import Cost, Limits
from headrace.domain.states import JobState
from headrace.errors import EngineError, EngineFault, EngineUnavailable, PromptRejected, StoreUnavailable
from headrace.policies.overflow import Objection, quote
from headrace.policies.pricing import cost
from headrace.store import Store, attempts
from headrace.store.clock import NOW
from headrace.sweeper import Sweep
from plugins.batches.domain import BatchState, ProviderBatch, ProviderState
from plugins.batches.provider_api import VOID_STATES, BatchApi, ProviderResult, Told, answer_of
from plugins.batches.provider_lines import BATCH_TIER, PROVIDER_WINDOW_S
from plugins.batches.store import provider_batches
from plugins.batches.store.provider_batches import HOLD, PAGE_ROWS
from workers.engines.base import Generation
from workers.paid import NO_CALL
from workers.running.bill import Answered, Bill
from workers.running.publisher import Notices

log = logging.getLogger(__name__)

#: How often a worker renews its leases, and tries to send what is not sent, in seconds.
LEASE_EVERY_S, SEND_EVERY_S = 2.0, 5.0
#: A provider's batch without a last word so long after it was made is given up. What it may cost counts as spent.
LONGEST = timedelta(seconds=PROVIDER_WINDOW_S) + timedelta(hours=2)
#: How long one that was asked for, and whose call had no answer, is looked for before it is asked for again.
APPEARS_WITHIN = timedelta(minutes=15)
#: The status of one that the provider is asked to make.
ASKED = "asked for"
REASON = "the provider's batch tier: its queue would not start it in time"


@dataclass(slots=True)
class BatchTier:
    """The sweeps of one overflow worker.

    Attributes:
        bill: of the worker, with the prices in force.
        configured: the settings' limits of all apps together.
        paid_pools: the pools that only the paid API answers.
        poll_s, lease_s: how often the provider is asked; how long a batch waits for another worker.
    """

    store: Store
    api: BatchApi
    notices: Notices
    bill: Bill
    configured: Limits
    paid_pools: Collection[str]
    poll_s: float
    lease_s: float
    id: UUID = field(default_factory=new_id)
    _mine: Sequence[ProviderBatch] = ()

    def sweeps(self) -> list[Sweep]:
        """All of them, with their intervals."""
        return [
            Sweep("lease_provider_batches", LEASE_EVERY_S, self.lease),
            Sweep("send_provider_batches", SEND_EVERY_S, self.send),
            Sweep("read_provider_batches", self.poll_s, self.read),
        ]

    def close(self) -> None:
        """Give the leases up."""
        try:
            with self.store.begin() as db:
                provider_batches.release(db, self.id)
        except StoreUnavailable as error:
            log.warning("provider_batches_not_released", extra={"error": str(error)})
        self.api.close()

    def lease(self) -> int:
        """Renew the leases, and take over what no worker moves on. Returns: how many there are."""
        with self.store.begin() as db:
            self._mine = provider_batches.lease(db, self.id, self.lease_s)
        return len(self._mine)

    def send(self) -> int:
        """Bring new ones to the provider. Returns: how many were moved on."""
        return self._move_on([batch for batch in self._mine if batch.state not in _THERE])

    def read(self) -> int:
        """Ask the provider for those that it has, and settle what has ended. Returns: how many were moved on."""
        return self._move_on([batch for batch in self._mine if batch.state in _THERE])

    def _move_on(self, these: Sequence[ProviderBatch]) -> int:
        """Move each on as far as it goes now. One that fails does not hold up the others.

        Raises: the first error that is not the provider's, once all have been tried.
        """
        moved, failed = 0, list[Exception]()
        for batch in these:
            try:
                at, after = batch, self._step(batch)
                while after is not None:
                    at, after = after, self._step(after)
                moved += at is not batch
            except EngineError as error:
                facts = {"provider_batch": batch.name, "state": str(batch.state), "error": str(error)}
                log.warning("provider_batch_waits", extra=facts)
            except Exception as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return moved

    def _step(self, batch: ProviderBatch) -> ProviderBatch | None:
        """Take its next step. Returns: the batch after it; None if there is nothing to do now."""
        match batch.state:
            case ProviderState.GATHERING:
                is_over = batch.batch_state is not BatchState.IN_PROGRESS or batch.age > HOLD
                return self._to(batch, ProviderState.READY) if is_over else None
            case ProviderState.READY:
                return self._reserve(batch)
            case ProviderState.RESERVED:
                return self._upload(batch)
            case ProviderState.UPLOADED:
                return self._create(batch)
            case ProviderState.SENT:
                return self._look(batch)
            case ProviderState.SETTLED:
                return self._forget(batch)
            case ProviderState.ENDED:
                return None

    def _to(self, batch: ProviderBatch, state: ProviderState, **values: object) -> ProviderBatch | None:
        """Move it to a state. Returns: it as it is then; None if another worker has taken it over."""
        with self.store.begin() as db:
            if not provider_batches.move(db, batch, self.id, state, **values):
                return None
            return provider_batches.find(db, batch.id)

    # Send.

    def _reserve(self, batch: ProviderBatch) -> ProviderBatch | None:
        """Begin the attempts of its lines, and reserve the money of each. What the budgets do not pay for goes back."""
        while self._reserve_some(batch):
            pass
        with self.store.begin() as db:
            lines = provider_batches.count_running(db, batch)
        state = ProviderState.RESERVED if lines else ProviderState.ENDED
        return self._to(batch, state, lines=lines)

    def _reserve_some(self, batch: ProviderBatch) -> int:
        """Returns: how many jobs were dealt with."""
        bill = self.bill.of_one_attempt()
        with self.store.begin() as db:
            if not provider_batches.move(db, batch, self.id, batch.state):
                return 0
            claims = provider_batches.claim(db, batch, REASON)
            asked, back = list[tuple[Claim, Decimal]](), list[tuple[Claim, AttemptEnd]]()
            for claim in claims:
                quoted = quote(claim, bill.tariff, tier=BATCH_TIER)
                if claim.unread is not None:
                    back.append((claim, _objected(Objection(claim.unread.code, str(claim.unread)))))
                elif isinstance(quoted, Objection):
                    back.append((claim, _objected(quoted)))
                else:
                    asked.append((claim, quoted.most_usd))
            lacking = provider_batches.reserve(db, asked, self.configured)
            back += [(one, _objected(Objection.of(lacking[one.job_id]))) for one, _ in asked if one.job_id in lacking]
            ended = provider_batches.give_back(db, batch, back, self.paid_pools)
        self._tell(ended)
        if back:
            log.warning("provider_lines_not_paid", extra={"provider_batch": batch.name, "lines": len(back)})
        return len(claims)

    def _upload(self, batch: ProviderBatch) -> ProviderBatch | None:
        """Bring the file to the provider, unless it has the file."""
        if self._is_unwanted(batch):
            return self._give_up(batch, "The batch was cancelled.")
        try:
            file_id = self.api.find_file(batch.name)
            if file_id is None:
                if batch.age > HOLD:
                    return self._give_up(batch, "The paid API did not take the file.")
                # Without a name, so that nothing is left of it whatever happens.
                with tempfile.TemporaryFile() as file:
                    for page in self._running(batch):
                        file.writelines(map(self.api.line, page))
                    file.seek(0)
                    file_id = self.api.upload(batch.name, file)
        except (PromptRejected, EngineUnavailable) as error:
            return self._give_up(batch, str(error))
        return self._to(batch, ProviderState.UPLOADED, file_id=file_id)

    def _create(self, batch: ProviderBatch) -> ProviderBatch | None:
        """Let the provider make the batch, unless it has made it."""
        assert batch.file_id is not None
        try:
            told = _chosen(self.api.find_batches(batch.name), batch.asks)
        except EngineUnavailable as error:
            if not batch.asks:
                return self._give_up(batch, str(error))
            # It may have been made, by a call whose answer was lost.
            if batch.age > LONGEST:
                return self._lose(batch)
            raise
        if told is not None:
            self._note_made(batch, told)
            # It needs minutes at least: the other sweep asks for it.
            return None
        if batch.status == ASKED:
            return self._look_longer(batch)
        if self._is_unwanted(batch):
            return self._give_up(batch, "The batch was cancelled.")
        if batch.age > HOLD:
            return self._give_up(batch, "The paid API did not take the batch.")
        asked = self._to(batch, batch.state, status=ASKED, asks=batch.asks + 1, asked_at=NOW)
        return asked and self._ask(asked)

    def _ask(self, batch: ProviderBatch) -> ProviderBatch | None:
        """Ask for it, once."""
        assert batch.file_id is not None
        try:
            told = self.api.create(batch.name, batch.file_id)
        except EngineError as error:
            if error.may_be_billed:
                raise
            unmade = self._to(batch, batch.state, status=None, asks=batch.asks - 1)
            if unmade is None or not isinstance(error, PromptRejected | EngineUnavailable):
                raise
            return self._give_up(unmade, str(error))
        self._note_made(batch, told)
        return None

    def _look_longer(self, batch: ProviderBatch) -> ProviderBatch | None:
        """Wait for one that may have been made. If it does not appear, send its file anew."""
        assert batch.file_id is not None
        assert batch.asked_at is not None
        if batch.read_at - batch.asked_at < APPEARS_WITHIN:
            return None
        log.warning("provider_batch_did_not_appear", extra={"provider_batch": batch.name, "asks": batch.asks})
        # Without its file, a batch that is made even now fails, at no cost.
        self.api.delete(batch.file_id)
        return self._to(batch, ProviderState.RESERVED, file_id=None, status=None)

    def _note_made(self, batch: ProviderBatch, told: Told) -> None:
        """Note that the provider has it."""
        values = {"provider_id": told.provider_id, "status": told.status, "sent_at": NOW}
        facts = {"provider_batch": batch.name, "provider_id": told.provider_id}
        if self._to(batch, ProviderState.SENT, **values) is None:
            # Another worker has taken it over, and finds this one by its name.
            log.error("provider_batch_made_too_late", extra=facts)
        else:
            log.info("provider_batch_sent", extra=facts)

    def _surplus(self, batch: ProviderBatch) -> list[Told]:
        """Cancel what else the provider has made of these lines. Returns: all of it, as it was before."""
        if not _has_surplus(batch):
            return []
        others = [each for each in self.api.find_batches(batch.name) if each.provider_id != batch.provider_id]
        for each in others:
            if not each.has_ended and each.status not in VOID_STATES:
                log.error(
                    "provider_batch_surplus", extra={"provider_batch": batch.name, "provider_id": each.provider_id}
                )
                self.api.cancel(each.provider_id)
        return others

    def _billed(self, others: Sequence[Told]) -> Usage:
        """All that these cost."""
        lines = (
            result.usage
            for each in others
            for file_id in (each.file_ids if each.usage is None else ())
            for result in self.api.results(file_id)
        )
        return _sum(Usage(), *(each.usage for each in others if each.usage is not None), *lines)

    def _is_unwanted(self, batch: ProviderBatch) -> bool:
        with self.store.begin() as db:
            return provider_batches.find(db, batch.id).batch_state is BatchState.CANCELLING

    # Read.

    def _look(self, batch: ProviderBatch) -> ProviderBatch | None:
        """Ask for it; settle its lines once it has ended."""
        assert batch.provider_id is not None
        assert batch.sent_at is not None
        is_late = batch.read_at - batch.sent_at > LONGEST
        try:
            told, others = self.api.read(batch.provider_id), self._surplus(batch)
            if told.has_ended and (is_late or all(each.has_ended for each in others)):
                return self._settle(batch, told, others)
            values: dict[str, object] = {"status": told.status, "checked_at": NOW}
            is_unwanted = batch.batch_state is BatchState.CANCELLING and not told.has_ended
            if is_unwanted and batch.cancel_asked_at is None:
                values |= {"status": self.api.cancel(batch.provider_id).status, "cancel_asked_at": NOW}
            self._to(batch, batch.state, **values)
        except EngineError:
            if not is_late:
                raise
        return self._lose(batch) if is_late else None

    def _settle(self, batch: ProviderBatch, told: Told, others: Sequence[Told]) -> ProviderBatch | None:
        """Settle each line with its answer, once; send the others back; book what else was billed.

        Args: others: the surplus ones, which cost, too.
        """
        seen = Usage()
        for file_id in told.file_ids:
            results = self.api.results(file_id)
            while page := list(islice(results, PAGE_ROWS)):
                seen = _sum(seen, *(result.usage for result in page))
                self._settle_page(batch, page, has_total=told.usage is not None)
        self._send_back(batch, told.error or f"It had no answer when the paid API's batch was {told.status}.")
        values: dict[str, object] = {"status": told.status, "checked_at": NOW, "error": told.error}
        billed = _sum(told.usage or seen, self._billed(others))
        with self.store.begin() as db:
            values["answered"], booked = provider_batches.booked(db, batch)
            settled = self._book(db, batch, ProviderState.SETTLED, _more(billed, booked), **values)
        facts = {"provider_batch": batch.name, "status": told.status, "lines": values["answered"]}
        log.info("provider_batch_settled", extra=facts)
        return settled

    def _book(
        self, db: Connection, batch: ProviderBatch, state: ProviderState, more: Usage, **values: object
    ) -> ProviderBatch | None:
        """Move it to a state. Args: more: what was billed beyond the answers."""
        model, price = self.bill.tariff.api_model(batch.model), self.bill.tariff.api_price(batch.model)
        cost_usd = cost(price, more, BATCH_TIER)
        if more != Usage():
            values["unreturned_usd"] = cost_usd.usd
        if not provider_batches.move(db, batch, self.id, state, **values):
            return None
        if more != Usage():
            log.warning("provider_billed_more", extra={"provider_batch": batch.name, "usd": f"{cost_usd.usd:f}"})
            provider_batches.book_unreturned(db, batch, model, more, cost_usd)
        return provider_batches.find(db, batch.id)

    def _settle_page(self, batch: ProviderBatch, page: Sequence[ProviderResult], *, has_total: bool) -> None:
        """Args: has_total: the provider says what all lines cost, so that nothing of it is guessed."""
        by_job: dict[UUID, ProviderResult] = {}
        for result in page:
            if result.job_id is not None:
                by_job.setdefault(result.job_id, result)
        bill = self.bill.of_one_attempt()
        with self.store.begin() as db:
            claims = provider_batches.claims(db, batch, list(by_job))
            answers = [(claim, answer_of(claim, by_job[claim.job_id].line)) for claim in claims]
            done, failed = list[tuple[Claim, AttemptEnd]](), list[tuple[Claim, AttemptEnd]]()
            back = list[tuple[Claim, AttemptEnd]]()
            for claim, answer in answers:
                if isinstance(answer, Generation):
                    done.append((claim, bill.of(Answered(claim, answer, 0.0), "succeeded")))
                    continue
                answer.may_be_billed = answer.may_be_billed and not has_total
                ends = failed if isinstance(answer, PromptRejected) else back
                ends.append((claim, _failed(bill, claim, answer)))
            ended = [*self._finish(db, JobState.SUCCEEDED, done), *self._finish(db, JobState.FAILED, failed)]
            ended += provider_batches.give_back(db, batch, back, self.paid_pools)
        self._tell(ended)

    @staticmethod
    def _finish(db: Connection, state: JobState, ends: Sequence[tuple[Claim, AttemptEnd]]) -> list[Claim]:
        ended = attempts.finish_all(db, state, ends) if ends else set()
        return [claim for claim, _ in ends if claim.job_id in ended]

    # The lines that it does not answer.

    def _give_up(self, batch: ProviderBatch, why: str) -> ProviderBatch | None:
        """Send all lines back, before the provider has worked on any."""
        log.warning("provider_batch_given_up", extra={"provider_batch": batch.name, "error": why})
        self._send_back(batch, why)
        return self._to(batch, ProviderState.SETTLED, error=why)

    def _lose(self, batch: ProviderBatch) -> ProviderBatch | None:
        """Book all that its lines may cost as spent, and send them back: nothing is heard of it any more."""
        why = "The paid API has said nothing final of its batch for 26 hours."
        log.error("provider_batch_lost", extra={"provider_batch": batch.name, "provider_id": batch.provider_id})
        self._send_back(batch, why, is_spent=True)
        return self._to(batch, ProviderState.SETTLED, error=why)

    def _send_back(self, batch: ProviderBatch, why: str, *, is_spent: bool = False) -> None:
        """Args: is_spent: whether what is reserved counts as spent."""
        fault = EngineFault(why)
        fault.may_be_billed = is_spent
        bill = self.bill.of_one_attempt()
        while True:
            with self.store.begin() as db:
                if not provider_batches.move(db, batch, self.id, batch.state):
                    return
                claims = provider_batches.running(db, batch, None)
                ends = [(claim, _failed(bill, claim, fault)) for claim in claims]
                ended = provider_batches.give_back(db, batch, ends, self.paid_pools)
            self._tell(ended)
            if not claims:
                return

    def _forget(self, batch: ProviderBatch) -> ProviderBatch | None:
        """Delete the provider's files: nothing of them is needed any more. One that may still appear is waited for."""
        files, more = [batch.file_id] if batch.file_id else [], Usage()
        try:
            others = self._surplus(batch)
            if batch.provider_id is not None:
                files += self.api.read(batch.provider_id).file_ids
            elif _may_appear(batch, others):
                self._delete(files)
                return None
            else:
                more = self._billed(others)
            files += [file_id for each in others for file_id in each.file_ids]
            self._delete(files)
        except EngineUnavailable as error:
            facts = {"provider_batch": batch.name, "files": files, "error": str(error)}
            log.warning("provider_files_not_deleted", extra=facts)
            if _has_surplus(batch) and batch.asked_at is not None and batch.read_at - batch.asked_at < LONGEST:
                return None  # What may still run, or is not read yet, costs.
        with self.store.begin() as db:
            return self._book(db, batch, ProviderState.ENDED, more)

    def _delete(self, file_ids: Sequence[str]) -> None:
        for file_id in file_ids:
            self.api.delete(file_id)

    def _running(self, batch: ProviderBatch) -> Iterator[list[Claim]]:
        """The claims of all its lines, in pages."""
        after: UUID | None = None
        while True:
            with self.store.begin() as db:
                page = provider_batches.running(db, batch, after)
            if not page:
                return
            after = page[-1].job_id
            yield page

    def _tell(self, ended: Sequence[Claim]) -> None:
        for claim in ended:
            self.notices.ended(claim.job_id, has_webhook=claim.has_webhook)


#: The provider has it, and is asked as often as the settings say.
_THERE = (ProviderState.SENT, ProviderState.SETTLED)


def _chosen(found: Sequence[Told], asks: int) -> Told | None:
    """The first batch that was made and may answer lines. Args: found: newest first."""
    able = [each for each in found if each.status not in VOID_STATES] or (found if asks < 2 else [])
    return able[-1] if able else None


def _has_surplus(batch: ProviderBatch) -> bool:
    """Returns True if the provider may have made others than the known one."""
    return batch.asks > (batch.provider_id is not None)


def _may_appear(batch: ProviderBatch, others: Sequence[Told]) -> bool:
    """Checks if a batch that was given up is made after all, or ends."""
    if not batch.asks or batch.asked_at is None:
        return False
    since = batch.read_at - batch.asked_at
    return since < HOLD or (since < LONGEST and not all(each.has_ended for each in others))


def _objected(objection: Objection) -> AttemptEnd:
    return replace(NO_CALL, error_code=objection.code, error_message=objection.message)


def _failed(bill: Bill, claim: Claim, error: EngineError) -> AttemptEnd:
    """The bill of a line without an answer, at the tier's price also where its cost is a guess."""
    end = bill.of_failure(claim, error, 0.0)
    return replace(end, cost=Cost(end.cost.usd, f"{end.cost.price_version}/{BATCH_TIER}")) if end.estimated else end


def _sum(*usages: Usage) -> Usage:
    return Usage(*map(sum, zip(*map(astuple, usages), strict=True)))


def _more(billed: Usage, booked: Usage) -> Usage:
    """What was billed beyond what is booked."""
    prompt = max(0, billed.prompt_tokens - booked.prompt_tokens)
    cached = max(0, billed.cached_tokens - booked.cached_tokens)
    return Usage(prompt, max(0, billed.output_tokens - booked.output_tokens), min(cached, prompt))
