"""vLLM's extra sampling parameters in a request's body, by vLLM's names.

Source of the limits: `SamplingParams` and `v1/worker/gpu/sample/logit_bias.py` of vLLM 0.32.
"""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from api.schemas.fields import INT4_MAX, Request, refusal
from headrace.domain.prompts.extra_sampling import NEUTRAL

#: A core of vLLM dies of more than 1,024 biases, and of more than 128 tokens that end an answer, the model's own
#: included.
MOST_BIASES = 1_000
MOST_STOP_TOKENS = 64
#: Characters of the JSON of `chat_template_kwargs`.
KWARGS_CHARS_LIMIT = 16_384
#: Arguments that Headrace itself gives the chat template.
RESERVED = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize"}
)

_NAMES = frozenset(NEUTRAL)


def _template_kwargs(given: dict[str, Any]) -> dict[str, Any]:
    if reserved := RESERVED.intersection(given):
        raise refusal(f"'{min(reserved)}' cannot be set")
    if len(json.dumps(given)) > KWARGS_CHARS_LIMIT:
        raise refusal(f"it may have at most {KWARGS_CHARS_LIMIT} characters of JSON")
    return given


Penalty = Annotated[float, Field(ge=-2, le=2)]
TemplateKwargs = Annotated[dict[str, Any], AfterValidator(_template_kwargs)]
TokenId = Annotated[int, Field(ge=0, le=INT4_MAX)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class ExtraSamplingRequest(Request):
    """The part of a request that says how an open model samples."""

    top_k: Annotated[int, Field(ge=-1, le=INT4_MAX)] | None = Field(
        None, description="Only the k likeliest tokens; -1 or 0: all. This and the next ten are for own models."
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Only tokens at least so likely, as a share of the likeliest one's probability."
    )
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="Above 1: avoid tokens of the prompt and of the answer so far."
    )
    presence_penalty: Penalty | None = Field(None, description="Above 0: avoid tokens of the answer so far.")
    frequency_penalty: Penalty | None = Field(None, description="The same, in proportion to how often they came.")
    logit_bias: dict[Annotated[str, Field(pattern="^[0-9]{1,10}$")], Bias] | None = Field(
        None, max_length=MOST_BIASES, description="Added to the logits of tokens, by the model's own token ids."
    )
    min_tokens: Annotated[int, Field(ge=0, le=INT4_MAX)] | None = Field(
        None, description="The answer does not end before it has so many tokens."
    )
    stop_token_ids: list[TokenId] | None = Field(
        None, max_length=MOST_STOP_TOKENS, description="Tokens that end the answer, by the model's own ids."
    )
    ignore_eos: bool | None = Field(None, description="Go on to max_tokens, past the token that ends an answer.")
    skip_special_tokens: bool | None = Field(None, description="False: special tokens are part of the text.")
    chat_template_kwargs: TemplateKwargs | None = Field(
        None, description='Variables of the model\'s chat template, such as `{"enable_thinking": false}`.'
    )

    @property
    def extra_sampling(self) -> dict[str, Any] | None:
        """The given parameters, by name; None where none is."""
        given = self.model_fields_set & _NAMES
        return {name: value for name in sorted(given) if (value := getattr(self, name)) is not None} or None
