"""What the reference says of the webhooks of batches."""

from plugins.batches.domain import BATCH_EVENT, BatchState
from plugins.batches.schemas.batches import BatchEnded
from plugins.batches.web import WEBHOOKS


def test_each_end_of_a_batch_has_a_webhook_that_is_described_and_no_other_has() -> None:
    ends = {f"{BATCH_EVENT}{state}" for state in BatchState if state.is_terminal}
    assert {webhook.event for webhook in WEBHOOKS} == ends
    assert all(webhook.data is BatchEnded and webhook.about.endswith(".") for webhook in WEBHOOKS)
