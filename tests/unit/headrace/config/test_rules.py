"""The rules of `headrace.toml` for the model `auto`, and what is said of wrong ones."""

from pathlib import Path

import pytest

from headrace.config import Settings
from headrace.errors import ConfigError

POOLS = """
[pools.chat]
model = "large"
[pools.fast]
model = "small"
"""


def load(folder: Path, text: str) -> Settings:
    path = folder / "headrace.toml"
    path.write_text(POOLS + text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CONFIG", str(path))
        return Settings.load()


def test_rules_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """
        [rules.short]
        pools = ["fast", "chat"]
        apps = ["shop"]
        tasks = ["classify"]
        max_prompt_chars = 2000
        max_output_tokens = 50
        wants_json = true
        [rules.all]
        pools = ["chat"]
    """
    rules = load(tmp_path, text).rules

    assert list(rules) == ["short", "all"]
    short = rules["short"]
    assert (short.pools, short.apps, short.tasks) == (("fast", "chat"), {"shop"}, {"classify"})
    assert (short.max_prompt_chars, short.max_output_tokens, short.wants_json) == (2000, 50, True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[rules.a]", r"rules\.a\.pools.*Field required"),
        ("[rules.a]\npools = []", r"rules\.a\.pools.*at least 1 item"),
        ("[rules.a]\npools = ['fast']\nmax_prompt_chars = 0", r"rules\.a\.max_prompt_chars.*greater than 0"),
        ("[rules.a]\npools = ['fast']\ntask = ['x']", r"rules\.a\.task .*Extra inputs"),
        (
            "[rules.a]\npools = ['fats']",
            r"\[rules\.a\] names pool 'fats'; the pools: chat, fast\. Add \[pools\.fats\], or correct the name",
        ),
        (
            "[pools.twin]\nmodel = 'small'\n[rules.a]\npools = ['twin']",
            r"names pool 'twin', whose model is that of pool 'fast': name 'fast', or give 'twin' another model",
        ),
        (
            "[pools.vectors]\nmodel = 'v'\nserves = 'embeddings'\n[rules.a]\npools = ['fast', 'vectors']",
            r"\[rules\.a\] names pool 'vectors', which serves embeddings; a job of the model 'auto' is a prompt",
        ),
        ("[rules.a]\npools = ['fast']\nshadow_share = 0.1", r"'shadow_share' needs a second pool"),
        ("[rules.a]\npools = ['fast', 'chat']\nshadow_share = 5", r"rules\.a\.shadow_share.*less than or equal to 1"),
        ("[rules.a]\npools = ['fast']\ncascade = true", r"'cascade' needs a second pool: add one to 'pools'"),
        ("[rules.a]\npools = ['fast', 'fast']\ncascade = true", r"\[rules\.a\] has a cascade, and names a pool twice"),
        ("[rules.a]\npools = ['fast', 'chat']\nmin_logprob = -1", r"'min_logprob' is for a cascade"),
        (
            "[rules.a]\npools = ['fast', 'chat']\ncascade = true\nmin_logprob = 0.5",
            r"rules\.a\.min_logprob.*less than or equal to 0",
        ),
        (
            "[rules.a]\npools = ['fast', 'chat']\ncascade = true\nrefusal_pattern = '('",
            r"rules\.a\.refusal_pattern.*no regular expression",
        ),
        (
            "[rules.a]\npools = ['fast', 'chat']\ncascade = true\nsignals = ['mood']",
            r"rules\.a\.signals.*'length', 'refusal' or 'format'",
        ),
        (
            "[pools.paid]\nmodel = 'gpt'\nengine = 'openai'\n[rules.a]\npools = ['paid', 'chat']\ncascade = true",
            r"\[rules\.a\] has a cascade, and pool 'paid', which the paid API answers, is not its last: name it last",
        ),
        ("[pools.x]\nmodel = 'auto'\n[rules.a]\npools = ['chat']", r"pool 'x' is called 'auto'.*rename it, or remove"),
    ],
)
def test_a_wrong_rule_is_named_with_what_is_right(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load(tmp_path, text)


def test_a_cascade_judges_by_what_an_answer_shows_unless_told_otherwise(tmp_path: Path) -> None:
    text = "[pools.paid]\nmodel = 'gpt'\nengine = 'openai'\n[rules.a]\npools = ['fast', 'chat', 'paid']\ncascade = true"
    rule = load(tmp_path, text).rules["a"]

    assert rule.cascade
    assert rule.signals == ("length", "refusal", "format")
    assert (rule.min_logprob, rule.refusal_pattern, rule.escalation_wait_s) == (None, None, 60)


def test_a_model_may_be_called_auto_where_no_rules_use_the_name(tmp_path: Path) -> None:
    assert load(tmp_path, "[pools.x]\nmodel = 'auto'").rules == {}
