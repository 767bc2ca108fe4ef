"""vLLM's extra sampling parameters: those that OpenAI's API lacks, or that depend on a model's own tokens. Pure.

A request gives them by vLLM's names. Own engines honour all of them; the paid API honours three.
"""

from collections.abc import Mapping
from typing import Any

#: By name, the values that change nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "chat_template_kwargs": ({},),
}
#: Those that OpenAI's API has, too.
PAID = ("presence_penalty", "frequency_penalty", "logit_bias")
#: Those that an engine cannot apply to an answer whose beginning it is given: it would count the tokens of the rest
#: alone, or read special tokens of the beginning as text.
OF_WHOLE_ANSWERS = ("presence_penalty", "frequency_penalty", "skip_special_tokens")

#: The given parameters, by name; None where a request gives none of them.
ExtraSampling = Mapping[str, Any]


def in_use(extra: ExtraSampling | None) -> dict[str, Any]:
    """Those whose values change something."""
    return {name: value for name, value in extra.items() if value not in NEUTRAL.get(name, ())} if extra else {}


def ours_alone(extra: ExtraSampling | None, *, names_paid_tokens: bool) -> tuple[str, ...]:
    """The names of those that keep a job from the paid API.

    Args: names_paid_tokens: token ids are the paid model's own. Another model's would mean other tokens there.
    """
    shared = PAID if names_paid_tokens else [name for name in PAID if name != "logit_bias"]
    return tuple(name for name in in_use(extra) if name not in shared)


def for_paid(extra: ExtraSampling | None) -> dict[str, Any]:
    """Those that the paid API gets."""
    return {name: value for name, value in in_use(extra).items() if name in PAID}
