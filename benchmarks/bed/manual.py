"""Conversations about real text: Python's own manual, as `pydoc_data.topics` of the standard library has it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pydoc_data.topics import topics

from headrace.domain.prompts import Message

#: Characters of one passage: about 450 tokens. Two of them and an answer fit into the small model.
PASSAGE_CHARS = 1800
#: Stands in front of each passage, as the footer of a mail or the head of a form would.
NOTICE = (
    "The following passage is taken from the reference manual of the Python programming language. Please read it "
    "carefully and completely before you answer. The manual describes the syntax and the core semantics of the "
    "language. It is terse, but it attempts to be exact and complete. If anything in the passage remains unclear to "
    "you, say so in your answer instead of guessing what its authors may have meant."
)
_HEADING = re.compile(r"^(?P<title>\S.*)\n(?:\*{3,}|={3,}|-{3,})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Two passages in earlier turns, and a question about one of them in the last."""

    title: str
    messages: tuple[Message, ...]


def conversations(number: int) -> list[Conversation]:
    """So many of them, from the longest topics on."""
    passages = list(_passages())
    return [_about(*pair) for pair in zip(passages[::2], passages[1::2], strict=False)][:number]


def _about(first: tuple[str, str], second: tuple[str, str]) -> Conversation:
    title = first[0]
    turns = (
        ("system", "You answer questions about texts, briefly and exactly."),
        ("user", f"{NOTICE}\n\n{first[1]}"),
        ("assistant", "Thank you, I have read this passage."),
        ("user", f"{NOTICE}\n\n{second[1]}"),
        ("assistant", "Thank you, I have read this passage, too."),
        ("user", f"Explain in three sentences what the text says about: {title}"),
    )
    return Conversation(title, tuple(Message(role, text) for role, text in turns))  # type: ignore[arg-type]


def _passages() -> Iterator[tuple[str, str]]:
    """The title of each topic with the beginning of its text, in whole paragraphs."""
    for _, text in sorted(topics.items(), key=lambda topic: (-len(topic[1]), topic[0])):
        heading = _HEADING.search(text)
        if heading is None:
            continue
        body, passage = text[heading.end() :].strip(), ""
        for paragraph in body.split("\n\n"):
            if len(passage) + len(paragraph) > PASSAGE_CHARS:
                break
            passage += paragraph + "\n\n"
        if len(passage) > PASSAGE_CHARS // 2:
            yield heading["title"].replace("“", "").replace("”", ""), passage
