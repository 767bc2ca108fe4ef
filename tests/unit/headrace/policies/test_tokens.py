import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from headrace.connections.model_files import TEMPLATES as TEMPLATES_FOLDER
from headrace.domain.prompts import Message, ReasoningEffort, plain_text, plain_tokens
from headrace.domain.prompts.embeddings import text_input, token_input
from headrace.domain.prompts.tools import ToolCall
from headrace.errors import ConfigError, InvalidRequest
from headrace.policies.tokens import LONG_CHARS, EstimatingTokenizer, InputTokenizer, Tokenizer
from headrace.policies.tokens.chat_template import template_arguments

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
#: Templates with a variable for the reasoning effort, each under another name.
THOUGHTFUL = {
    "enable_thinking": CHATML + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}",
    "reasoning_effort": "{% if not reasoning_effort %}{% set reasoning_effort = 'medium' %}{% endif %}"
    "Reasoning: {{ reasoning_effort }}{{ messages[0].content }}",
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


@pytest.mark.parametrize("text", ["héllo <|im_end|> 漢字 🌊\n", "<|im_start|>", "  ", "a" * 50 + "\x00\u0301"])
@pytest.mark.parametrize("are_special_tokens_letters", [False, True])
def test_a_long_text_has_the_tokens_that_a_short_one_would_have(
    tmp_path: Path, text: str, are_special_tokens_letters: bool
) -> None:
    tokenizer, plain = Tokenizer(write_model(tmp_path, "{{ messages[0].content }}")), byte_level()
    plain.encode_special_tokens = are_special_tokens_letters
    long = text * LONG_CHARS
    expected = plain.encode(long, add_special_tokens=False).ids
    if are_special_tokens_letters:
        assert tokenizer.encode_answer(long) == expected
    else:
        assert tokenizer.encode([Message("user", long)]) == expected
        assert tokenizer.count([Message("user", long)]) == len(expected)


def test_counting_a_long_text_freezes_no_other_thread(tmp_path: Path) -> None:
    tokenizer, gaps = Tokenizer(write_model(tmp_path)), [0.0]
    long = Message("user", "".join(chr(97 + (at * at + at // 7) % 26) if at % 7 else " " for at in range(1_500_000)))
    counting = threading.Thread(target=tokenizer.count, args=([long],))
    began = last = time.perf_counter()
    counting.start()
    while counting.is_alive():
        counting.join(0.001)
        gaps.append(time.perf_counter() - last)
        last += gaps[-1]
    assert max(gaps) < (last - began) / 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("effort", ["none", "high", None])
@pytest.mark.parametrize("template", THOUGHTFUL.values(), ids=THOUGHTFUL)
def test_a_template_is_told_how_much_is_to_be_thought(
    tmp_path: Path, template: str, effort: ReasoningEffort | None
) -> None:
    transformers = pytest.importorskip("transformers")
    write_model(tmp_path, template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, **template_arguments(effort)
    )["input_ids"]
    tokenizer, messages = Tokenizer(tmp_path), [Message("user", "hi")]
    assert tokenizer.reads_effort
    assert tokenizer.encode(messages, effort) == theirs
    assert tokenizer.count(messages, effort) == len(theirs) >= tokenizer.least(messages, effort) > 0


def test_what_is_thought_without_effort_is_said_in_the_prompt(tmp_path: Path) -> None:
    tokenizer, messages = Tokenizer(write_model(tmp_path, THOUGHTFUL["enable_thinking"])), [Message("user", "hi")]
    assert tokenizer.render(messages, "none") == tokenizer.render(messages) + "<think></think>"
    assert tokenizer.render(messages, "low") == tokenizer.render(messages)
    assert tokenizer.count(messages, "none") > tokenizer.count(messages)


@pytest.mark.parametrize("template", [CHATML, CHATML + "{% set enable_thinking = true %}{{ enable_thinking }}"])
def test_a_template_that_does_not_ask_is_known_by_that(tmp_path: Path, template: str) -> None:
    assert not Tokenizer(write_model(tmp_path, template)).reads_effort


def test_a_template_that_refuses_the_effort_names_it(tmp_path: Path) -> None:
    knows = "{% if reasoning_effort not in ['low', 'high'] %}{{ raise_exception('low or high') }}{% endif %}"
    template = "{% if reasoning_effort is defined %}" + knows + "{% endif %}{{ messages[0].content + '' }}"
    tokenizer = Tokenizer(write_model(tmp_path, template))
    assert tokenizer.count([Message("user", "hi")], "low")
    with pytest.raises(InvalidRequest, match="'max': low or high") as caught:
        tokenizer.count([Message("user", "hi")], "max")
    assert caught.value.param == "reasoning_effort"


def test_an_older_model_has_its_template_among_its_settings(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHATML}]
    for template in (CHATML, named):
        tokenizer = Tokenizer(write_model(tmp_path, None, chat_template=template))
        assert tokenizer.render([Message("user", "hi")]) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_count_is_the_number_of_ids(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_model(tmp_path))
    assert tokenizer.count(CONVERSATION) == len(tokenizer.encode(CONVERSATION))


def test_an_answer_s_beginning_is_encoded_as_the_letters_it_has(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_model(tmp_path))
    reader = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("The fox", " jumps\n", "over <|im_end|> the", "été 🌊", ""):
        ids = tokenizer.encode_answer(text)
        assert reader.decode(ids, skip_special_tokens=True) == text
    # In a prompt the same letters still are the special token.
    assert reader.token_to_id("<|im_end|>") in tokenizer.encode([Message("user", "hi")])


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
    for effort in (None, "low"):
        with pytest.raises(InvalidRequest) as caught:
            tokenizer.count([Message("user", "hi")], effort)
        assert caught.value.param == "messages"


def test_developer_becomes_system_unless_the_template_knows_it(tmp_path: Path) -> None:
    messages = [Message("developer", "x")]
    assert "system" in Tokenizer(write_model(tmp_path)).render(messages)
    knowing = "{% if messages[0].role == 'developer' %}developer{% endif %}"
    assert Tokenizer(write_model(tmp_path, knowing)).render(messages) == "developer"


@pytest.mark.parametrize("text", ["", "a", "Où est l'été?\n\n漢字 🌊 <|im_end|> word " * 30])
def test_each_token_of_a_text_has_its_end(tmp_path: Path, text: str) -> None:
    for tokenizer in (Tokenizer(write_model(tmp_path)), EstimatingTokenizer()):
        ids, ends = tokenizer.encode_ends(text)

        assert ids == tokenizer.encode_answer(text)
        assert len(ends) == len(ids)
        assert ends == sorted(ends)
        assert ends[-1:] == [len(text)] * bool(text)


def test_counting_needs_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, headrace.policies.tokens; print(sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_a_text_far_too_long_has_a_bound_far_above_zero(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_model(tmp_path))
    assert tokenizer.least([Message("user", "word " * 1_000_000)]) > 100_000


@pytest.mark.filterwarnings("ignore")
def test_a_template_is_given_the_variables_of_the_request_and_who_speaks(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    template = "{% for m in messages %}{{ m.name }}{{ m.content }}{% endfor %}{{ tone }}{{ enable_thinking }}"
    tokenizer, messages = Tokenizer(write_model(tmp_path, template)), [Message("user", "hi", "ann")]
    kwargs = {"tone": "kind", "enable_thinking": False}
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        [{"role": "user", "content": "hi", "name": "ann"}], add_generation_prompt=True, **kwargs
    )["input_ids"]
    # What the request says of a variable wins over what an effort says of it.
    assert tokenizer.render(messages, "low", kwargs) == "annhikindFalse"
    assert tokenizer.encode(messages, None, kwargs) == theirs
    assert tokenizer.count(messages, None, kwargs) == len(theirs) >= tokenizer.least(messages, None, kwargs) > 0


@pytest.mark.parametrize("value", ["x", 0, None, [], {"a": 1}])
def test_a_template_that_does_not_expect_a_variable_s_value_names_it(tmp_path: Path, value: object) -> None:
    template = "{{ messages[0].content }}{% if deep is defined %}{{ (6 // deep) ~ deep[0] }}{% endif %}"
    tokenizer = Tokenizer(write_model(tmp_path, template))
    with pytest.raises(InvalidRequest, match="refuses 'chat_template_kwargs'") as caught:
        tokenizer.count([Message("user", "hi")], None, {"deep": value})
    assert caught.value.param == "chat_template_kwargs"


def test_a_texts_tokens_lead_back_to_it(tmp_path: Path) -> None:
    tokenizer, text = Tokenizer(write_model(tmp_path)), "The fox <|im_end|> été 🌊"
    ids = tokenizer.encode_text(text, adds_special=True)
    assert tokenizer.decode(ids) == text
    assert "<|im_end|>" in tokenizer.spell(ids)
    assert len(tokenizer.spell(ids)) == len(ids)
    with pytest.raises(InvalidRequest, match="no token 123456"):
        tokenizer.spell([1, 123_456])


def test_estimated_tokens_lead_back_to_their_text() -> None:
    tokenizer, text = EstimatingTokenizer(), "The fox été 🌊!"
    ids = tokenizer.encode_text(text, adds_special=True)
    assert (tokenizer.decode(ids), len(tokenizer.spell(ids))) == (text, len(ids))
    assert tokenizer.count([Message("user", "x" * 40, "a" * 40)]) == tokenizer.count([Message("user", "x" * 40)]) + 10


def test_a_plain_prompt_has_no_template_around_it(tmp_path: Path) -> None:
    write_model(tmp_path)
    tokenizer, reader = Tokenizer(tmp_path), tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("The fox <|im_end|> jumps", "x" * LONG_CHARS * 2):
        prompt = [plain_text(text)]
        assert tokenizer.encode(prompt) == reader.encode(text).ids
        assert tokenizer.count(prompt) == len(reader.encode(text).ids) >= tokenizer.least(prompt) > 0


def test_a_plain_prompts_token_ids_stay_as_they_are(tmp_path: Path) -> None:
    for tokenizer in (Tokenizer(write_model(tmp_path)), EstimatingTokenizer()):
        prompt = [plain_tokens([5, 300, 7])]
        assert tokenizer.encode(prompt) == [5, 300, 7]
        assert (tokenizer.count(prompt), tokenizer.least(prompt)) == (3, 3)
    assert EstimatingTokenizer().count([plain_text("x" * 40)]) == 10


#: The template of SmolLM2-Instruct itself.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}"
)
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "é <b>", "parameters": {"type": "object"}},
}
CALL = ToolCall("call_1", "weather", '{"city": "Zürich"}')


@pytest.mark.parametrize(
    "messages",
    [
        [Message("user", "Hi ")],
        [Message("system", "\nS"), Message("user", "a"), Message("assistant", ""), Message("user", "<|im_end|>")],
        [Message("assistant", "a"), Message("system", "b"), Message("developer", "c")],
    ],
)
def test_without_tools_the_shipped_template_is_the_model_s_own(tmp_path: Path, messages: list[Message]) -> None:
    folder = write_model(tmp_path, SMOLLM2)
    own, shipped = Tokenizer(folder), Tokenizer(folder, TEMPLATES_FOLDER / "smollm2.jinja")
    assert own.render(messages) == shipped.render(messages)
    assert (own.reads_tools, shipped.reads_tools) == (False, True)


def test_the_shipped_template_tells_of_tools_calls_and_outputs(tmp_path: Path) -> None:
    shipped = Tokenizer(write_model(tmp_path), TEMPLATES_FOLDER / "smollm2.jinja")
    talk = [
        Message("user", "Hi"),
        Message("assistant", "I look.", tool_calls=(CALL, ToolCall("call_2", "time", "not JSON"))),
        Message("tool", "rainy", tool_call_id="call_1"),
    ]
    text = shipped.render(talk, None, {"tools": [WEATHER]})
    assert f"<tools>\n{json.dumps(WEATHER, ensure_ascii=False)}\n</tools>" in text
    calls = ['{"name": "weather", "arguments": {"city": "Zürich"}}', '{"name": "time", "arguments": {}}']
    written = "\n".join(["I look.", *(f"<tool_call>\n{call}\n</tool_call>" for call in calls)])
    assert f"<|im_start|>assistant\n{written}<|im_end|>" in text
    assert "<tool_response>\nrainy\n</tool_response>" in text
    assert shipped.count(talk, None, {"tools": [WEATHER]}) > shipped.count(talk)


@pytest.mark.parametrize(
    "arguments", ["[" * 100_000, '{"a": "\\ud800"}', "1" * 5000, '{"a": ' * 900 + "1" + "}" * 900, "nope", "", "1e999"]
)
def test_no_arguments_break_the_prompt(tmp_path: Path, arguments: str) -> None:
    """A model wrote them, or a client: an error here would end the conversation."""
    shipped = Tokenizer(write_model(tmp_path), TEMPLATES_FOLDER / "smollm2.jinja")
    talk = [Message("user", "Hi"), Message("assistant", "", tool_calls=(ToolCall("c", "f", arguments),))]
    assert shipped.count(talk) == len(shipped.encode(talk)) > 0


def test_tools_that_a_template_refuses_are_blamed(tmp_path: Path) -> None:
    template = "{% if tools %}{{ raise_exception('None here.') }}{% endif %}{{ messages[0].content }}"
    tokenizer = Tokenizer(write_model(tmp_path, template))
    talk = [Message("user", "Hi")]
    with pytest.raises(InvalidRequest, match="refuses these tools: None here") as raised:
        tokenizer.count(talk, None, {"tools": [WEATHER]})
    assert raised.value.param == "tools"
    assert tokenizer.count(talk) > 0


def test_an_estimate_counts_tools_and_calls() -> None:
    estimate, talk = EstimatingTokenizer(), [Message("user", "Hi")]
    tools = {"tools": [WEATHER]}
    assert estimate.count(talk, None, tools) - estimate.count(talk) == pytest.approx(
        len(json.dumps(WEATHER)) / 4, abs=2
    )
    assert (
        estimate.count(talk, None, tools)
        == len(estimate.encode(talk, None, tools))
        == estimate.least(talk, None, tools)
    )
    called = [*talk, Message("assistant", "", tool_calls=(CALL,))]
    assert estimate.count(called) > estimate.count([*talk, Message("assistant", "")]) + len(CALL.arguments) / 4


# Inputs of embeddings: each is counted and encoded by itself, as the model reads it.

WORDS = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "water": 3, "falls": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, whose tokenizer marks both ends of a text, cuts it at four tokens, and pads it to eight."""
    words = tokenizers.Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", WORDS["[CLS]"]), ("[SEP]", WORDS["[SEP]"])]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    words.enable_truncation(4)
    words.enable_padding(length=8)
    words.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_each_input_has_its_own_special_tokens_and_is_neither_cut_nor_padded(folder: Path) -> None:
    tokenizer = InputTokenizer.of(folder, is_matryoshka=False)
    inputs = [text_input("water falls"), token_input([4, 4]), text_input("water " * 9)]
    assert tokenizer.encode_each(inputs) == [[1, 3, 4, 2], [4, 4], [1, *[3] * 9, 2]]
    assert tokenizer.count_each(inputs) == [4, 2, 11]
    assert not tokenizer.is_matryoshka


def test_an_estimate_has_a_token_for_each_four_bytes() -> None:
    tokenizer = InputTokenizer()
    assert tokenizer.count_each([text_input("é" * 100), token_input([7])]) == [50, 1]
    assert tokenizer.is_matryoshka


def test_a_conversation_is_refused() -> None:
    with pytest.raises(InvalidRequest) as raised:
        InputTokenizer().encode_each([Message("user", "Hi")])
    assert raised.value.param == "messages"


def test_a_folder_without_a_tokenizer_is_a_wrong_setting(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=str(folder)):
        InputTokenizer.of(folder, is_matryoshka=False)
    (folder / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=str(folder)):
        InputTokenizer.of(folder, is_matryoshka=False)
