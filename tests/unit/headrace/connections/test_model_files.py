"""Tokenizers of pools: from a folder, or an estimate where no model is at hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from headrace.config import PoolSettings
from headrace.connections.model_files import tokenizer, tokenizer_for
from headrace.domain.prompts import Message
from headrace.errors import ConfigError
from headrace.policies.tokens import EstimatingTokenizer, InputTokenizer, Tokenizer
from tests.unit.headrace.policies.test_tokens import write_model


@pytest.mark.parametrize("missing", ["tokenizer.json", "chat_template.jinja"])
def test_a_folder_that_lacks_a_file_is_a_wrong_setting(tmp_path: Path, missing: str) -> None:
    (write_model(tmp_path) / missing).unlink()
    with pytest.raises(ConfigError, match=str(tmp_path)):
        tokenizer("name", tmp_path)


@pytest.mark.parametrize("engine", ["simulator", "openai"])
def test_an_estimate_needs_no_model(engine: Any) -> None:
    pool = PoolSettings(engine=engine, model="nobody/nothing")
    estimate = tokenizer_for(pool)
    messages = [Message("user", "é" * 100)]
    assert isinstance(estimate, EstimatingTokenizer)
    assert estimate.count(messages) == math.ceil((len("user: ") + 200) / 4) == estimate.least(messages)


@pytest.mark.parametrize("engine", ["simulator", "openai"])
def test_an_engine_without_a_model_counts_with_one_that_is_given(engine: Any, tmp_path: Path) -> None:
    pool = PoolSettings(engine=engine, model="any", model_dir=write_model(tmp_path))
    assert isinstance(tokenizer_for(pool), Tokenizer)


def test_an_embedding_model_needs_no_chat_template(tmp_path: Path) -> None:
    (write_model(tmp_path) / "chat_template.jinja").unlink()
    assert isinstance(tokenizer_for(PoolSettings(serves="embeddings", model_dir=tmp_path)), InputTokenizer)
    assert isinstance(tokenizer_for(PoolSettings(serves="embeddings", engine="simulator", model="a/b")), InputTokenizer)


@pytest.mark.parametrize(
    ("facts", "overrides", "is_matryoshka"),
    [
        ({}, {}, False),
        ({"is_matryoshka": True}, {}, True),
        ({"matryoshka_dimensions": [64, 128]}, {}, True),
        ({}, {"hf_overrides": {"is_matryoshka": True}}, True),
        ({"is_matryoshka": True}, {"hf_overrides": '{"is_matryoshka": false}'}, False),
    ],
)
def test_a_vector_may_be_shortened_where_the_model_or_the_operator_says_so(
    tmp_path: Path, facts: dict[str, Any], overrides: dict[str, Any], is_matryoshka: bool
) -> None:
    (write_model(tmp_path) / "config.json").write_text(json.dumps(facts))
    made = tokenizer_for(PoolSettings(serves="embeddings", model_dir=tmp_path, engine_options=overrides))
    assert isinstance(made, InputTokenizer)
    assert made.is_matryoshka is is_matryoshka


def test_a_template_takes_the_place_of_the_model_s_own(tmp_path: Path) -> None:
    file = tmp_path / "other.jinja"
    file.write_text("{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}")
    messages = [Message("user", "Hi")]
    rendered: dict[str | None, str] = {}
    for name in (None, str(file), "smollm2"):
        pool = PoolSettings(model="any", model_dir=write_model(tmp_path), chat_template=name)
        made = tokenizer_for(pool)
        assert isinstance(made, Tokenizer)
        assert made.reads_tools is (name is not None)
        rendered[name] = made.render(messages)
    assert rendered[str(file)] == "Hi"
    assert "SmolLM" in rendered["smollm2"]


def test_a_template_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    pool = PoolSettings(model="any", model_dir=write_model(tmp_path), chat_template="smollm3")
    with pytest.raises(ConfigError, match=r"no file 'smollm3'.*ships: smollm2") as raised:
        tokenizer_for(pool)
    assert raised.value.param == "chat_template"
