"""What vLLM is given of a request's sampling: its own names, and nothing that the request does not say."""

from headrace.domain.prompts import Sampling
from workers.engines.vllm.sampling import decoding


def test_a_request_that_says_nothing_sets_nothing() -> None:
    assert decoding(Sampling(5)) == {"stop": []}


def test_extra_parameters_go_by_vllms_names() -> None:
    extra = {"top_k": 5, "min_p": 0.1, "logit_bias": {"7": -1.5}, "chat_template_kwargs": {"a": 1}}
    assert decoding(Sampling(5, temperature=0, extra=extra)) == {
        **{"temperature": 0, "stop": [], "top_k": 5, "min_p": 0.1},
        "logit_bias": {7: -1.5},
    }
