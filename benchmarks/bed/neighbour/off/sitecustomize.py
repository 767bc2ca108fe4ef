"""Takes mechanisms away, for a counter-proof: `NEIGHBOUR_OFF=a,b` and this folder on PYTHONPATH, and nowhere else.

Python runs this at its start. `encoding`: long texts are encoded under the GIL, as many at once as come; `values`: a
body's values are counted when all of them have been read; `checksum`: every key is looked up in Postgres; `waits`: one
app may hold all the waits of a process, and an abandoned one is held until its job has ended.
"""

import os

OFF = os.environ.get("NEIGHBOUR_OFF", "").split(",")  # noqa: TID251 - no setting: the product knows nothing of it.

if "encoding" in OFF:
    from contextlib import nullcontext

    import tokenizers

    from api.bodies import fair_semaphore
    from headrace.policies import tokens

    def encoded(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
        """The text's encoding, which keeps the GIL."""
        return tokenizer.encode(text, add_special_tokens=False)

    tokens._encoded = encoded
    fair_semaphore.FairSemaphore.hold = lambda self, app_id: nullcontext()  # type: ignore[method-assign]
if "values" in OFF:
    from api.schemas import body

    body._values = lambda raw: 0
if "checksum" in OFF:
    from headrace.store.clients import keys

    keys.may_exist = lambda key, pepper: True
if "waits" in OFF:
    from uuid import UUID

    from api.reading import slots, waits

    def take(held: slots.Slots, app_id: UUID) -> slots.Slot | None:
        """A slot as long as one is free, without shares for apps."""
        with held._lock:
            if held._held.total() >= held._count:
                return None
            held._held[app_id] += 1
            return slots.Slot(held, app_id)

    slots.Slots.take = take  # type: ignore[method-assign]
    waits.Watch.look_for_client = lambda self, found, now: None  # type: ignore[method-assign]
