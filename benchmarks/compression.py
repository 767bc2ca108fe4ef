"""What compression of prompts saves, and what it costs in answers, on real text with the real small model.

The claim: what a conversation says twice can go with most of what its text adds to the answer, and nothing protected
changes. Uses the policies and the engine as a worker does, in one process.
"""

import json
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
from rich.table import Table

from bed.logprobs import measure
from bed.manual import Conversation, conversations
from bed.real_engine import check_installed, demo_folder, pool_of
from bed.testbed import console, line_of
from headrace.config import Settings
from headrace.connections.model_files import tokenizer_for
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.compression import Compression
from headrace.policies.compression import Paragraph, paragraphs, plain
from headrace.policies.tokens import PromptTokenizer
from workers.engines import load
from workers.engines.base import GenerationRequest

Messages = tuple[Message, ...]
#: Goals: of the prompts' tokens, those not sent; and what the compressed text retains.
LEAST_SAVED, LEAST_RETAINED = 0.05, 0.85
COMPRESSION = Compression()
ANSWER_TOKENS = 48
#: Prompts in the engine at once. Without its prefix cache: each prompt is read whole, so that the times compare.
POOL = {"max_running": 8, "max_model_tokens": 2048, "engine_options": {"enable_prefix_caching": False}}
#: Read by other rules than the policy's: words with digits, short quotations, indented lines, and columns of a grammar.
_FIXED = (
    *(re.compile(r"\S*\d\S*"), re.compile(r'"[^"\s]+"')),
    *(re.compile(r"^    .*$", re.MULTILINE), re.compile(r"(?:^ +\w+ {2,}::=.*\n){2,}", re.MULTILINE)),
)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to shorten all prompts.

    Attributes:
        saved_share: of the tokens of all prompts, those that are gone.
        retained: how well the model predicts its own answer to the whole prompt (mean log probability of its tokens)
            from the shortened one. 1: as well as from the whole one; 0: as from the question alone.
        protected_changed: turns in which something protected is not as it was.
    """

    saved_share: float
    retained: float
    protected_changed: int


def compressed(talks: Sequence[Conversation]) -> list[Messages]:
    """The conversations, compressed as a worker compresses them."""
    return [plain(talk.messages, COMPRESSION) for talk in talks]


def question_alone(talk: Conversation) -> Messages:
    """What is left without any text: the floor of agreement."""
    return (talk.messages[0], talk.messages[-1])


def answers(engine: Any, prompts: Sequence[Messages]) -> list[str]:
    """The engine's answers, greedily decoded, some at once."""

    def answer(numbered: tuple[int, Messages]) -> str:
        number, messages = numbered
        sampling = Sampling(ANSWER_TOKENS, temperature=0.0)
        return str(engine.generate(GenerationRequest(f"answer-{number}", messages, sampling)).text)

    with ThreadPoolExecutor(int(str(POOL["max_running"]))) as threads:
        return list(threads.map(answer, enumerate(prompts)))


def word_f1(one: str, other: str) -> float:
    """Words that two texts share, as in SQuAD's measure: the harmonic mean of precision and recall."""
    first, second = (Counter(word.lower() for word in _WORD.findall(text)) for text in (one, other))
    shared = (first & second).total()
    return 2 * shared / (first.total() + second.total()) if shared else float(first == second)


def changed(before: Messages, after: Messages) -> int:
    """Turns in which something that must not change has changed."""
    turns = zip(before, after, strict=True)
    return sum(any(kind.findall(old.content) != kind.findall(new.content) for kind in _FIXED) for old, new in turns)


@contextmanager
def without_protection() -> Iterator[None]:
    """Let everything be cut."""

    def bare(text: str) -> list[Paragraph]:
        return [replace(each, spans=(), is_set=False) for each in paragraphs(text)]

    with patch("headrace.policies.compression.paragraphs", bare):
        yield


@dataclass(slots=True)
class Bench:
    """The conversations with the answers to whole prompts, and how well they are predicted from most and least."""

    engine: Any
    tokenizer: PromptTokenizer
    talks: Sequence[Conversation]
    whole: Sequence[str]
    most: float = 0.0
    least: float = 0.0

    def __post_init__(self) -> None:
        self.most = self.logprob([talk.messages for talk in self.talks])
        self.least = self.logprob([question_alone(talk) for talk in self.talks])

    def logprob(self, prompts: Sequence[Messages]) -> float:
        """The mean log probability of the tokens of the answers to the whole prompts, after these prompts."""
        told = [self.tokenizer.encode_answer(text) for text in self.whole]
        asked = [self.tokenizer.encode(prompt) + answer for prompt, answer in zip(prompts, told, strict=True)]
        measured = measure(self.engine, asked)
        return statistics.fmean(
            statistics.fmean(logprobs[-len(answer) :]) for logprobs, answer in zip(measured, told, strict=True)
        )

    def arm(self, prompts: Sequence[Messages]) -> Arm:
        """Measure prompts that were shortened."""
        before, after = (sum(map(self.tokenizer.count, each)) for each in ([t.messages for t in self.talks], prompts))
        retained = (self.logprob(prompts) - self.least) / (self.most - self.least)
        turns = [changed(talk.messages, prompt) for talk, prompt in zip(self.talks, prompts, strict=True)]
        return Arm(1 - after / before, retained, sum(turns))

    def agreement(self, prompts: Sequence[Messages]) -> float:
        """Word F1 of the answers to these prompts with those to the whole ones, mean over the prompts."""
        return statistics.fmean(map(word_f1, answers(self.engine, prompts), self.whole))

    def prefill_ms(self, prompts: Sequence[Messages]) -> float:
        """Milliseconds from a prompt to its first token, one after the other."""
        took = []
        for number, messages in enumerate(prompts):
            began = time.perf_counter()
            self.engine.generate(GenerationRequest(f"prefill-{number}", messages, Sampling(1, temperature=0.0)))
            took.append(time.perf_counter() - began)
        return statistics.fmean(took) * 1000

    def plain_ms(self) -> float:
        """Milliseconds that compression takes of the processor, for one conversation."""
        began = time.process_time()
        compressed(self.talks)
        return (time.process_time() - began) * 1000 / len(self.talks)


def compare(bench: Bench, off: str | None) -> tuple[dict[str, Arm], dict[str, float]]:
    """Both arms, and the other figures."""
    prompts = compressed(bench.talks)
    arms = {"plain": bench.arm(prompts)}
    with without_protection():
        arms["unprotected"] = bench.arm(compressed(bench.talks))
    others = {
        "agreement": bench.agreement(prompts),
        "floor_agreement": bench.agreement([question_alone(talk) for talk in bench.talks]),
        "prefill_ms": bench.prefill_ms([talk.messages for talk in bench.talks]),
        "prefill_compressed_ms": bench.prefill_ms(prompts),
        "plain_ms": bench.plain_ms(),
    }
    if off is not None:
        arms["plain"] = arms["unprotected"]
    return arms, others


def show(arms: dict[str, Arm]) -> None:
    """Every arm."""
    table = Table("what goes", header_style="bold", title="what shortened prompts retain")
    for heading in ("tokens saved", "retained", "turns with a change"):
        table.add_column(heading, justify="right")
    for name, arm in arms.items():
        table.add_row(name, f"{arm.saved_share:.1%}", f"{arm.retained:.3f}", str(arm.protected_changed))
    console.print(table)


def summary(arms: dict[str, Arm], others: dict[str, float]) -> dict[str, Any]:
    """What the last line says."""
    real = arms["plain"]
    return {
        "saved_share": real.saved_share,
        "retained": real.retained,
        "protected_changed": real.protected_changed,
        "unprotected_changed": arms["unprotected"].protected_changed,
        **others,
    }


@click.command()
@click.option("--conversations", "number", type=click.IntRange(2, 40), default=8, show_default=True)
@click.option(
    "--off",
    type=click.Choice(["protection"]),
    help="Protect nothing: what stands in place of the real thing then.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(number: int, off: str | None, file: Path | None) -> None:
    """Compress conversations about Python's manual, and compare the answers with those to whole prompts.

    The text is that of `pydoc_data.topics`, which comes with Python. A conversation has two passages, each below the
    same notice, and asks about one. The demo's model answers, greedily. `plain` drops what is said twice. `unprotected`
    does so without protection. `retained` is 1 if the model predicts its answer to the whole prompt as well from the
    shortened one, and 0 if no better than from the question alone.

    The last line is name=value pairs: what is saved and retained; turns in which something protected changed;
    `agreement`, the word F1 of answers to compressed and to whole prompts, and its floor, that of answers to the
    question alone; and milliseconds for one conversation: to read it whole and compressed, and of the processor for
    `plain`. The status is 1 when a goal is missed.

    \b
    bin/headrace python benchmarks/compression.py
    bin/headrace python benchmarks/compression.py --off protection
    """
    check_installed()
    pool, talks = pool_of(demo_folder(), POOL), conversations(number)
    engine: Any = load("vllm", Settings.load(), pool)
    engine.start()
    try:
        console.print(f"{len(talks)} conversations; the whole prompts first")
        whole = answers(engine, [talk.messages for talk in talks])
        bench = Bench(engine, tokenizer_for(pool), talks, whole)  # type: ignore[arg-type]
        arms, times = compare(bench, off)
    finally:
        engine.stop()
    show(arms)
    figures = summary(arms, times)
    if file is not None:
        every = {"arms": {name: asdict(arm) for name, arm in arms.items()}, "figures": figures}
        file.write_text(json.dumps(every, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(1 if is_missed(figures) else 0)


def is_missed(figures: dict[str, Any]) -> bool:
    """True if a goal is."""
    return (
        figures["saved_share"] < LEAST_SAVED or figures["retained"] < LEAST_RETAINED or figures["protected_changed"] > 0
    )


if __name__ == "__main__":
    main()
