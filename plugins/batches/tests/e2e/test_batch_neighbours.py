"""An app whose batches are as heavy as they may be, beside one with a small batch, which does not wait for them."""

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
import tokenizers
from openai.types import Batch
from tokenizers import decoders, models, pre_tokenizers, trainers

from headrace.config import Settings
from headrace.connections import postgres
from headrace.store import apps, keys

PEPPER = "of-the-tests"
CHAT = "/v1/chat/completions"
#: The longest text of one token, and the model's limit: a prompt of fewer characters than one times the other has to be
#: counted, which takes some tenths of a second.
TOKEN_CHARS, LIMIT_TOKENS = 48, 32_768
HEAVY_CHARS, HEAVY_LINES = 1_500_000, 40
LINES_LIMIT = 2000
CANCELLED = 20


def write_tokenizer(folder: Path) -> None:
    """A tokenizer over bytes, whose longest token is as long as a real one's."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["=" * TOKEN_CHARS], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["What is a headrace? The channel that feeds a turbine."] * 20, trainer)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")


@pytest.fixture(scope="module")
def system(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder)
    return start(
        also=["plugins"],
        pools__chat__model_dir=str(folder),
        pools__chat__max_model_tokens=str(LIMIT_TOKENS),
        batches__lines_limit=str(LINES_LIMIT),
        simulator__output_tokens="2",
        pepper=PEPPER,
    )


@pytest.fixture(scope="module")
def good(system: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{system.stack.report.url}/v1", api_key=system.stack.report.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def hostile(system: Any) -> Iterator[openai.OpenAI]:
    """The client of another app."""
    engine = postgres(Settings.load(database_url=system.stack.report.database_url, pepper=PEPPER), pool_size=1)
    with engine.begin() as db:
        key = keys.make(db, apps.ensure(db, "hostile").id, PEPPER)
    engine.dispose()
    with openai.OpenAI(base_url=f"{system.stack.report.url}/v1", api_key=key) as client:
        yield client


def line(number: int, content: str = "Why?", **body: Any) -> bytes:
    request = {"messages": [{"role": "user", "content": content}], "max_tokens": 2, **body}
    return json.dumps({"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": request}).encode() + b"\n"


def upload(client: openai.OpenAI, content: bytes) -> str:
    return client.files.create(file=("lines.jsonl", io.BytesIO(content)), purpose="batch").id


def submit(client: openai.OpenAI, file_id: str) -> Batch:
    return client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")


def small(client: openai.OpenAI, number: int) -> Batch:
    """A batch of short prompts."""
    return submit(client, upload(client, b"".join(line(each, f"Question {each}?") for each in range(number))))


def has_ended(client: openai.OpenAI, batch: Batch) -> bool:
    return client.batches.retrieve(batch.id).status in ("completed", "cancelled", "failed")


def ended_lines(client: openai.OpenAI, batch: Batch) -> int:
    counts = client.batches.retrieve(batch.id).request_counts
    assert counts is not None
    return counts.completed + counts.failed


def test_lines_of_a_megabyte_starve_no_other_batch_and_end_one_by_one(
    good: openai.OpenAI, hostile: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    content = b"".join(line(number, f"{number} " + "abcdefghij" * (HEAVY_CHARS // 10)) for number in range(HEAVY_LINES))
    heavy = submit(hostile, upload(hostile, content))
    wait_until(lambda: hostile.batches.retrieve(heavy.id).status == "in_progress", "the heavy file is read")
    batch = small(good, 100)
    wait_until(lambda: has_ended(good, batch), "the end of the small batch")
    at_end = ended_lines(hostile, heavy)
    counts = good.batches.retrieve(batch.id).request_counts
    assert counts is not None
    assert counts.completed == 100
    assert at_end < HEAVY_LINES, "the small batch did not wait for the heavy one"
    wait_until(lambda: ended_lines(hostile, heavy) > at_end + 3, "heavy lines end one by one")
    hostile.batches.cancel(heavy.id)
    wait_until(lambda: has_ended(hostile, heavy), "the end of the heavy batch")
    [file_id] = [hostile.batches.retrieve(heavy.id).error_file_id]
    assert file_id is not None
    results = [json.loads(each) for each in hostile.files.content(file_id).text.splitlines()]
    assert len({each["custom_id"] for each in results}) == len(results) == HEAVY_LINES
    assert {each["response"]["status_code"] for each in results if each["response"]} == {400}


def test_many_cancelled_batches_do_not_delay_the_end_of_another_apps(
    good: openai.OpenAI, hostile: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    # Their window begins later, so that none of their lines runs.
    file_id = upload(hostile, b"".join(line(number) for number in range(LINES_LIMIT)))
    job = {"job": {"not_before": int(time.time()) + 86_400}}
    many = [
        hostile.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h", extra_body=job)
        for _ in range(CANCELLED)
    ]
    wait_until(lambda: all(each.status == "in_progress" for each in found(hostile, many)), "all files are read")
    for each in many:
        hostile.batches.cancel(each.id)
    batch = small(good, 3)
    wait_until(lambda: has_ended(good, batch), "the end of the small batch")
    states = [each.status for each in found(hostile, many)]
    assert states.count("cancelled") < CANCELLED
    wait_until(lambda: all(each.status == "cancelled" for each in found(hostile, many)), "all are cancelled", 240)


def found(client: openai.OpenAI, many: Sequence[Batch]) -> list[Batch]:
    """These batches as they stand."""
    ids = {each.id for each in many}
    return [each for each in client.batches.list(limit=100).data if each.id in ids]


def test_blank_lines_without_end_make_a_file_no_batch(
    good: openai.OpenAI, hostile: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    batch = submit(hostile, upload(hostile, b"\n" * 8 * 1024**2 + line(1)))
    wait_until(lambda: has_ended(hostile, batch), "the end of the batch")
    failed = hostile.batches.retrieve(batch.id)
    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(each.code, each.line) for each in failed.errors.data] == [("too_many_tasks", None)]
    spaced = submit(good, upload(good, b"\n\r\n" + b"\n\n".join(line(number) for number in range(3)) + b"\n" * 50))
    wait_until(lambda: has_ended(good, spaced), "the end of a batch with some blank lines")
    assert ended_lines(good, spaced) == 3
