"""Events of a job's stream: what a worker publishes, and what a reader gets."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

#: What an entry of a stream adds: text of the answer; the log probabilities of the tokens of the text that comes next,
#: an object of JSON in each line; or what the model thinks before it answers.
PieceKind = Literal["delta", "logprobs", "reasoning"]


#: More events than any claim publishes. Numbers must grow even where Redis forgot what they had come to.
NUMBERS_PER_CLAIM = 1_000_000


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a job's stream.

    Attributes:
        number: grows with each event of the job, from 1 up, with gaps.
        kind: `restart` takes back all that came before it; to a reader that has heard nothing it means nothing.
        text: what a piece adds.
    """

    number: int
    kind: Literal[PieceKind, "restart"]
    text: str


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """What one claim has to add to its job's stream.

    Attributes:
        enqueue_no: of the claim. Attempts' numbers do not tell claims apart: one that was handed back is not counted.
        before_bytes: UTF-8 length of the claim's pieces before this one, a continued beginning included.
    """

    job_id: UUID
    enqueue_no: int
    before_bytes: int
    text: str
    kind: PieceKind = "delta"
