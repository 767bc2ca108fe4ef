"""Usage through the unchanged SDK, which has no method of its own for it."""

from collections.abc import Callable

import openai
import pytest
from openai import OpenAI

from headrace.domain.ids import parse_id


def test_the_sdk_reads_usage_by_its_own_get(sdk: OpenAI, finish: Callable[..., None]) -> None:
    made = sdk.responses.create(input="Why is the sky blue?", background=True, safety_identifier="u-42")
    finish(parse_id(made.id))

    usage = sdk.get("/usage", cast_to=dict[str, object], options={"params": {"group_by": "model,end_user"}})

    assert [(row["end_user"], row["model"], row["requests"]) for row in usage["data"]] == [("u-42", "served", 1)]
    assert usage["total"]["usd"] == "0.000001230"
    raw = sdk.responses.with_raw_response.retrieve(made.id)
    assert raw.headers["x-headrace-cost-usd"] == "0.000001230"


def test_the_sdk_raises_what_is_refused(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.get("/usage", cast_to=dict[str, object], options={"params": {"group_by": "app"}})

    assert raised.value.param == "group_by"
