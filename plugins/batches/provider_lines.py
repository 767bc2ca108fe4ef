"""Which lines of batches go to the provider's own batches. Pure."""

from headrace.errors import UnknownPrice
from headrace.policies.pricing import Tariff

#: The tier of a price that the provider's batches have.
BATCH_TIER = "batch"
#: The time within which a provider answers a batch. Source: OpenAI's guide "Batch API".
PROVIDER_WINDOW_S = 86_400.0
#: Lines may go to a provider's batch until so few seconds of their own window are left.
LATEST_S = PROVIDER_WINDOW_S - 3600


def lines_for_provider(left_s: float, lines: int, reached: int | None, *, is_paid_alone: bool) -> int:
    """How many lines of a batch should go to a provider's batch now.

    Where only the paid API may answer, all go at once. Where own GPUs may, those go that the GPUs are not expected to
    reach; that is decided late, in the last hour in which the provider still has its time.

    Args:
        left_s: seconds until the window ends.
        lines: those that have neither an answer nor a place at the provider.
        reached: of them, those that own GPUs are expected to start in time; None while no rate is known.
        is_paid_alone: own GPUs do not answer them.
    """
    if left_s < LATEST_S:
        return 0
    if is_paid_alone:
        return lines
    if reached is None or left_s > PROVIDER_WINDOW_S:
        return 0
    return max(0, lines - reached)


def has_batch_tier(tariff: Tariff, model: str) -> bool:
    """Whether the paid API's price for jobs of `model` has a batch tier: without one, none is guessed."""
    try:
        return BATCH_TIER in tariff.api_price(model).tiers
    except UnknownPrice:
        return False
