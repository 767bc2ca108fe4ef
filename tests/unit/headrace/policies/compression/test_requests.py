"""How a prompt is compressed: the request decides before the pool, and what a pool cannot do is refused by name."""

import pytest

from headrace.config import PoolSettings
from headrace.domain.compression import KEPT_SHARE, CompressChoice, Compression
from headrace.errors import InvalidRequest
from headrace.policies.compression import chosen

OFF = PoolSettings()
PLAIN = PoolSettings(compress="plain", compress_also=("last_turn",))
BOTH = PoolSettings(compress="surprise", compress_by="fast", compress_to=0.7)


@pytest.mark.parametrize(
    ("pool", "choice", "found"),
    [
        (OFF, CompressChoice(), None),
        (OFF, CompressChoice("plain"), Compression("plain")),
        (PLAIN, CompressChoice(), Compression("plain", also=("last_turn",))),
        (PLAIN, CompressChoice(also=()), Compression("plain")),
        (PLAIN, CompressChoice("off"), None),
        (BOTH, CompressChoice(), Compression("surprise", 0.7)),
        (BOTH, CompressChoice(to=0.3), Compression("surprise", 0.3)),
        (
            OFF,
            CompressChoice("plain", also=("system", "last_turn")),
            Compression("plain", also=("last_turn", "system")),
        ),
        # The share does not matter, so identical jobs have one key of the cache.
        (BOTH, CompressChoice("plain"), Compression("plain", KEPT_SHARE)),
    ],
)
def test_the_request_decides_before_the_pool(
    pool: PoolSettings, choice: CompressChoice, found: Compression | None
) -> None:
    assert chosen(choice, pool, "chat") == found


@pytest.mark.parametrize(
    ("pool", "choice", "param"),
    [
        (OFF, CompressChoice("surprise"), "compress"),
        (OFF, CompressChoice(to=0.5), "compress_to"),
        (OFF, CompressChoice(also=("system",)), "compress_also"),
        (BOTH, CompressChoice("off", to=0.5), "compress_to"),
        (PLAIN, CompressChoice(to=0.5), "compress_to"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(pool: PoolSettings, choice: CompressChoice, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chosen(choice, pool, "chat")
    assert refused.value.param == param
