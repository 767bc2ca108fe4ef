"""Confinement in a worker: an app whose prompts have killed engines runs one job at a time."""

import logging
from dataclasses import dataclass

from headrace.domain.attempts import Claim, HandBack, Reroute
from headrace.domain.ids import show_id
from headrace.domain.prompts import prompt_digest
from headrace.domain.queues import Route, queue_name
from headrace.errors import StoreUnavailable
from headrace.policies.retries import CONFINED, FIRST_DELAY_S
from headrace.store import Store
from headrace.store.jobs import confinements

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Confining:
    """Confines apps, and lets their jobs run in turn.

    Attributes: confine_s: how long an app is confined whose prompts have killed engines; 0: never.
    """

    store: Store
    confine_s: float = 0.0

    def enter(self, claim: Claim) -> HandBack | None:
        """Let the job of a confined app run if it is its turn; otherwise returns how to hand it back.

        A held job waits in Postgres until `give_turn` chooses it, and at most until the confinement ends.
        """
        try:
            with self.store.begin() as db:
                left_s = confinements.enter(db, claim)
        except StoreUnavailable as error:
            log.warning("turn_not_asked", extra={"job_id": show_id(claim.job_id), "error": str(error)})
            return HandBack(delay_s=FIRST_DELAY_S)
        if left_s is None:
            return None
        log.info("job_held", extra={"job_id": show_id(claim.job_id), "app_id": str(claim.app_id), "pool": claim.pool})
        why = f"{CONFINED}prompts of its app have killed engines of pool '{claim.pool}'"
        return HandBack(reroute=Reroute(queue_name(claim.pool, claim.lane), Route.POOL, why, left_s))

    def poison(self, claim: Claim) -> None:
        """Make the API refuse this prompt, and count it against its app, which is confined after too many.

        If Postgres does not accept the write, the next crash repeats it.
        """
        digest = prompt_digest(claim.model, claim.messages, claim.sampling)
        try:
            with self.store.begin() as db:
                confinements.remember_poison(db, digest, claim.job_id)
                until = confinements.strike(db, claim, self.confine_s)
        except StoreUnavailable as error:
            log.warning("poison_not_remembered", extra={"job_id": show_id(claim.job_id), "error": str(error)})
            return
        if until is not None:
            facts = {"app_id": str(claim.app_id), "pool": claim.pool, "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
            log.warning("app_confined", extra={"job_id": show_id(claim.job_id), **facts})
