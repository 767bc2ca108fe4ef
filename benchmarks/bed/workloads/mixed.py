"""Writes `mixed.jsonl`: prompts of 30 to 300 tokens whose answers have from 8 tokens to as many as they may.

How long an answer gets is the model's own affair, so that it is not known beforehand: with the demo model, greedily,
half of them have under 60 tokens, their mean is about a fifth of `max_tokens`, and one in nine goes on until it is cut.
"""

import json
import random
from pathlib import Path

SEED = 2026
JOBS = 400
MAX_TOKENS = 512
FILE = Path(__file__).with_suffix(".jsonl")

#: Kinds of prompts, and how many of a hundred are of each.
KINDS = {"fact": 45, "text": 40, "list": 13, "long": 2}
QUESTIONS = {
    "fact": ("What is the capital of {}?", "Name the largest city of {}.", "Which language is spoken in {}?"),
    "text": (
        "Read this text: {} Answer in one short sentence: what is it about?",
        "Read this text: {} When did the last miller close the doors?",
        "Summarise in one sentence: {}",
    ),
    "list": ("Name three animals that live in {}.", "Give two reasons to visit {}."),
    "long": ("Write a story about a {}.", "Explain how a {} works."),
}
COUNTRIES = ("Spain", "Greece", "France", "Italy", "Norway", "Poland", "Japan", "Kenya", "Peru", "Chile", "Canada")
THINGS = ("bridge", "mill", "lighthouse", "river", "clock", "bakery", "train", "garden", "ship", "library")
SENTENCES = (
    "The river rises in the hills above the town and runs for forty miles to the sea.",
    "A mill stood on its bank for three hundred years, and ground the corn of every farm in the valley.",
    "In 1894 the miller built a dam and a headrace, so that the wheel would turn in dry summers too.",
    "The wheel was made of oak and iron and weighed as much as ten horses.",
    "Children came to watch it on Sundays.",
    "When the railway reached the town, flour from abroad became cheaper than their own.",
    "The last miller closed the doors in 1931 and went to work at the station.",
    "Today the building is a museum with a small bakery.",
    "Its bread is sold out by ten in the morning.",
    "Engineers have put a turbine where the wheel was, and it lights two hundred houses.",
    "In spring the meadows beside the race are full of yellow flowers and the noise of frogs.",
    "A path leads along the water to a stone bridge with three arches.",
)


def prompts() -> list[str]:
    """The same ones each time."""
    dice = random.Random(SEED)
    made = []
    for kind in dice.choices(list(KINDS), list(KINDS.values()), k=JOBS):
        question = dice.choice(QUESTIONS[kind])
        subject = {
            "text": " ".join(dice.sample(SENTENCES, dice.randint(2, 11))),
            "long": dice.choice(THINGS),
        }.get(kind, dice.choice(COUNTRIES))
        made.append(question.format(subject))
    return made


def main() -> None:
    """Write the file."""
    lines = (json.dumps({"prompt": prompt, "max_tokens": MAX_TOKENS}) for prompt in prompts())
    FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
