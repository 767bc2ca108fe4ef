"""`/v1/embeddings`: its request and its answer, in the shapes of OpenAI's SDK."""

from typing import Literal, Self

from pydantic import Field

from api.door.drafts import Accepted, Draft, Spelling
from api.schemas.fields import Answer, Dimensions, EndUser, Inputs, Request
from api.schemas.openai import JobOptions, JobView
from headrace.domain.jobs import Job
from headrace.domain.prompts.embeddings import floats, of_answer
from headrace.domain.queues import Lane, Overflow

EncodingFormat = Literal["float", "base64"]


class EmbeddingRequest(Request):
    """Inputs for which an embedding model makes vectors, while the caller waits."""

    input: Inputs = Field(
        description="A text, token ids of the model's own tokenizer, or a list of either; each gets a vector."
    )
    model: str | None = Field(None, description="A model of GET /v1/models; by default the first that embeds.")
    dimensions: Dimensions | None = Field(
        None, description="Shortens the vectors, where the model was trained for it (Matryoshka)."
    )
    encoding_format: EncodingFormat | None = Field(
        None, description="base64: 32-bit floats, little-endian. By default float; the SDK asks for base64 itself."
    )
    user: EndUser | None = Field(None, description="Who caused this: costs can be split by it.")
    job: JobOptions = Field(
        default_factory=lambda: JobOptions.model_validate({}), description="What OpenAI has no word for."
    )

    def to_draft(self) -> Draft:
        """The request in the core's terms."""
        return Draft(
            spelling=Spelling("input", own_prefix="job.", lane="job.lane"),
            messages=self.input,
            is_embedding=True,
            model=self.model,
            lane=Lane(self.job.lane or Lane.NORMAL),
            max_wait_s=self.job.max_wait,
            deadline=self.job.deadline,
            overflow=Overflow(self.job.overflow),
            max_cost_usd=self.job.max_cost_usd,
            webhook_url=self.job.webhook,
            end_user=self.user,
            cache=self.job.cache,
            compress=self.job.compression,
            background=False,
            dimensions=self.dimensions,
        )


class EmbeddingBody(Answer):
    """The vector of one input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="As numbers, or in base64.")


class EmbeddingUsage(Answer):
    """Tokens as the engine counted them."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answer):
    """The vectors of all inputs, in their order."""

    object: Literal["list"] = "list"
    data: list[EmbeddingBody]
    model: str
    usage: EmbeddingUsage
    job: JobView

    @classmethod
    def of(cls, job: Job, accepted: Accepted | None, form: EncodingFormat) -> Self:
        """A job that succeeded, with the facts of its accept."""
        data = [
            EmbeddingBody(index=index, embedding=packed if form == "base64" else floats(packed))
            for index, packed in enumerate(of_answer(job.answer or ""))
        ]
        return cls(
            data=data,
            model=job.model_requested,
            usage=EmbeddingUsage(prompt_tokens=job.prompt_tokens, total_tokens=job.prompt_tokens),
            job=JobView.of(job, accepted),
        )
