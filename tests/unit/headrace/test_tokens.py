import json
import math
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from headrace.config import PoolSettings
from headrace.errors import ConfigError, InvalidRequest
from headrace.jobs import Message
from headrace.tokens import EstimatingTokenizer, Tokenizer, byte_bound, load_for

CHATML = (
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
#: One template per thing that transformers adds to plain jinja2.
TEMPLATES = {
    "chatml": CHATML,
    "special tokens": "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    "tojson": "{% for m in messages %}{{ m | tojson(indent=2) }}{% endfor %}",
    "blocks are trimmed": "{% for m in messages %}\n  {% if m.role %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "undefined": "{{ nothing }}{% if tools is not none %}tools{% endif %}{{ messages[0].content }}",
    "date": "{{ strftime_now('%Y') }}{{ messages[0].content }}",
}
CONVERSATION = [Message("system", " Be <b>brief</b>. "), Message("user", "Où est l'été? 漢字 🌊\n<|im_start|>")]


def byte_level(normalizer: normalizers.Normalizer | None = None) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["The quick brown fox jumps over the lazy dog."] * 20, trainer)
    return tokenizer


def write_model(folder: Path, template: str | None = CHATML, **config: Any) -> Path:
    byte_level().save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>", "__type": "AddedToken"}}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_tokens_equal_those_of_transformers(tmp_path: Path, template: str) -> None:
    transformers = pytest.importorskip("transformers")
    write_model(tmp_path, template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        [{"role": message.role, "content": message.content} for message in CONVERSATION], add_generation_prompt=True
    )["input_ids"]
    assert Tokenizer(tmp_path).encode(CONVERSATION) == theirs != []


def test_an_older_model_has_its_template_among_its_settings(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHATML}]
    for template in (CHATML, named):
        tokenizer = Tokenizer(write_model(tmp_path, None, chat_template=template))
        assert tokenizer.render([Message("user", "hi")]) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_count_is_the_number_of_ids(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_model(tmp_path))
    assert tokenizer.count(CONVERSATION) == len(tokenizer.encode(CONVERSATION))


def test_limits_and_padding_of_a_tokenizer_file_are_not_applied(tmp_path: Path) -> None:
    write_model(tmp_path)
    limited = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    limited.enable_truncation(4)
    limited.enable_padding(length=4)
    limited.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path).count([Message("user", "x" * 100)]) > 50


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('Conversation roles must alternate') }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}{{ messages.__init__.__globals__ }}",
    ],
)
def test_a_template_that_refuses_the_messages_names_them(tmp_path: Path, template: str) -> None:
    tokenizer = Tokenizer(write_model(tmp_path, template))
    with pytest.raises(InvalidRequest) as caught:
        tokenizer.count([Message("user", "hi")])
    assert caught.value.param == "messages"


def test_developer_becomes_system_unless_the_template_knows_it(tmp_path: Path) -> None:
    messages = [Message("developer", "x")]
    assert "system" in Tokenizer(write_model(tmp_path)).render(messages)
    knowing = "{% if messages[0].role == 'developer' %}developer{% endif %}"
    assert Tokenizer(write_model(tmp_path, knowing)).render(messages) == "developer"


@pytest.mark.parametrize("missing", ["tokenizer.json", "chat_template.jinja"])
def test_a_folder_that_lacks_a_file_is_a_wrong_setting(tmp_path: Path, missing: str) -> None:
    (write_model(tmp_path) / missing).unlink()
    with pytest.raises(ConfigError, match=str(tmp_path)):
        Tokenizer.load("name", tmp_path)


def test_the_simulator_s_estimate_needs_no_model() -> None:
    pool = PoolSettings(engine="simulator", model="nobody/nothing")
    tokenizer = load_for(pool)
    messages = [Message("user", "é" * 100)]
    assert isinstance(tokenizer, EstimatingTokenizer)
    assert tokenizer.count(messages) == math.ceil((len("user: ") + 200) / 4) == tokenizer.least(messages)


def test_a_simulator_with_a_model_counts_with_it(tmp_path: Path) -> None:
    pool = PoolSettings(engine="simulator", model="any", model_dir=write_model(tmp_path))
    assert isinstance(load_for(pool), Tokenizer)


def test_counting_needs_neither_torch_nor_transformers() -> None:
    program = "import sys, headrace.tokens; print(sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(" \n\te", max_size=300)
FULL = byte_level()
COMPOSING = byte_level(normalizers.NFC())


@pytest.mark.parametrize("tokenizer", [FULL, COMPOSING], ids=["plain", "NFC"])
@given(text=TEXTS)
@settings(deadline=None)
def test_the_bound_is_never_above_the_count(tokenizer: tokenizers.Tokenizer, text: str) -> None:
    bound = byte_bound(json.loads(tokenizer.to_str()))
    assert bound is not None
    assert bound.least(text) <= len(tokenizer.encode(text, add_special_tokens=False).ids)


@given(text=TEXTS)
@settings(deadline=None)
def test_bytes_that_a_vocabulary_cannot_spell_do_not_count(text: str) -> None:
    spec = json.loads(FULL.to_str())
    # No token has these, as in SmolLM2, whose training never met some control characters.
    gone = {"Ċ", "e", "Ã"}
    spec["model"]["vocab"] = {token: i for token, i in spec["model"]["vocab"].items() if not gone & set(token)}
    spec["model"]["merges"] = []
    bound = byte_bound(spec)
    assert bound is not None
    assert bound.least(text) <= len(tokenizers.Tokenizer.from_str(json.dumps(spec)).encode(text).ids)


def test_a_text_far_too_long_has_a_bound_far_above_zero(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_model(tmp_path))
    assert tokenizer.least([Message("user", "word " * 1_000_000)]) > 100_000


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", {"type": "Unigram", "vocab": []}),
        ("model", {"type": "WordPiece"}),
        ("pre_tokenizer", {"type": "WhitespaceSplit"}),
        ("pre_tokenizer", None),
        ("normalizer", {"type": "NFKC"}),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip"}]}),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "a"}),
        ("added_tokens", [{"content": "<mask>", "lstrip": True, "rstrip": False}]),
    ],
)
def test_where_text_may_get_lost_there_is_no_bound(part: str, change: Any) -> None:
    spec = json.loads(FULL.to_str())
    spec[part] = {**spec[part], **change} if part == "model" else change
    assert byte_bound(spec) is None


def test_splits_keep_the_bound_unless_they_remove() -> None:
    spec = json.loads(FULL.to_str())
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, spec["pre_tokenizer"]]}
    assert byte_bound(spec) is not None
    split["behavior"] = "Removed"
    assert byte_bound(spec) is None


def test_composition_shrinks_utf8_by_no_more_than_the_bound_allows() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    parts = {character: unicodedata.normalize("NFD", character) for character in characters}
    # The longest spelling of each part: itself, or a character that is nothing but another name for it.
    longest: dict[str, int] = {}
    for character in characters:
        if len(parts[character]) == 1:
            longest[parts[character]] = max(longest.get(parts[character], 0), len(character.encode()))
    spelled_out = {character: sum(longest[part] for part in parts[character]) for character in characters}
    # No spelling with composed characters is longer than the one in single parts.
    assert all(len(character.encode()) <= spelled_out[character] for character in characters)
    composed = [character for character in characters if unicodedata.normalize("NFC", character) == character]
    assert max(spelled_out[character] / len(character.encode()) for character in composed) == 3.5
    plain, composing = (byte_bound(json.loads(tokenizer.to_str())) for tokenizer in (FULL, COMPOSING))
    assert plain is not None
    assert composing is not None
    assert composing.bytes_per_token == 3.5 * plain.bytes_per_token
