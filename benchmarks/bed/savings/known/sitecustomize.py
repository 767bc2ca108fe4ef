"""Lets the simulator know the right answers: this folder on the PYTHONPATH of its workers, and nowhere else.

Python runs this at its start. An answer then has the digest of what is asked in it, in place of that of the prompt. So
two prompts have one answer if they ask the same, however they are worded or compressed.
"""

import hashlib
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from workers.engines.simulator import answer

sys.path.append(str(Path(__file__).parents[3]))
questions = import_module("bed.savings.questions")
by_prompt = answer.fingerprint


def by_meaning(messages: Any) -> str:
    """The digest of what the last message asks; of the whole prompt where that is unknown."""
    meaning = questions.meaning_of(messages[-1].content)
    return by_prompt(messages) if meaning is None else hashlib.sha256(meaning.encode()).hexdigest()


answer.fingerprint = by_meaning
