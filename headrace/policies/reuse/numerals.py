"""Joins items that write one number, quantity, time or date. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from headrace.policies.reuse.items import Item, Kind
from headrace.policies.reuse.lexicon import words_of
from headrace.policies.reuse.quantities import MONTHS, date_key, is_unit_after, ordinal, spelled, unit_after

#: Words beside which "one" is no number.
_NO_NUMBER_AFTER = words_of("of can could should is who that which might")
_NO_NUMBER_BEFORE = words_of(
    "which no any the this that each every some another should does do can could must will would might"
)


def with_numerals(items: Sequence[Item]) -> list[Item]:
    """Numbers in words as numbers, units behind numbers as units, and dates of several words as one item."""
    items = [part for item in items for part in _parts(item)]
    out: list[Item] = []
    at = 0
    while at < len(items):
        item = items[at]
        if date := _date(items, at):
            key, length = date
            out.append(Item(Kind.NUMBER, key))
            at += length
            continue
        length = 1
        is_after_number = bool(out) and out[-1].kind is Kind.NUMBER and out[-1].text.startswith("#")
        if item.kind is Kind.WORD and is_after_number and item.text.lower() in ("am", "pm"):
            out[-1] = _clock(out[-1], item.text.lower())
        elif item.kind in (Kind.WORD, Kind.VERBATIM) and is_after_number and is_unit_after(item.text):
            out.append(Item(Kind.NUMBER, unit_after(item.text)))
        elif item.kind is Kind.WORD and (number := _number(items, at)):
            length = number[1]
            out.append(Item(Kind.NUMBER, number[0]))
        else:
            out.append(item)
        at += length
    return out


def _parts(item: Item) -> list[Item]:
    """The parts of a word with hyphens."""
    if item.kind is not Kind.WORD:
        return [item]
    return [replace(item, text=part) for part in item.text.split("-") if part]


def _clock(number: Item, half: str) -> Item:
    hour = number.text.removeprefix("#")
    if not hour.isdigit():
        return number
    return Item(Kind.NUMBER, f"#time:{int(hour) % 12 + (12 if half == 'pm' else 0)}:00")


def _number(items: Sequence[Item], at: int) -> tuple[str, int] | None:
    """A number in words at a place: its key, and how many items it takes."""
    first = items[at].text.lower()
    if first == "one":
        before, after = (items[place].text.lower() if 0 <= place < len(items) else "" for place in (at - 1, at + 1))
        if before in _NO_NUMBER_BEFORE or after in _NO_NUMBER_AFTER or not after:
            return None
    if key := ordinal(first):
        return key, 1
    words = [first]
    for item in items[at + 1 : at + 6]:
        if item.kind is not Kind.WORD:
            break
        words.append(item.text.lower())
    return spelled(words)


def _date(items: Sequence[Item], at: int) -> tuple[str, int] | None:
    """A date that begins here: "March 5, 2024", "5th of March", "5. März 2024", "March 2024"."""
    words = [item.text.lower() for item in items[at : at + 6] if item.kind is not Kind.END]
    places = [place for place, item in enumerate(items[at : at + 6]) if item.kind is not Kind.END]
    if len(words) < 2 or items[at].kind is Kind.END:
        return None
    month_at = next((place for place in range(min(3, len(words))) if words[place] in MONTHS), None)
    if month_at is None or (
        month_at and not (_day(words[0]) and all(word in ("of", "the") for word in words[1:month_at]))
    ):
        return None
    month, rest = MONTHS[words[month_at]], words[month_at + 1 :]
    day, used = (_day(words[0]), month_at + 1) if month_at else (None, 1)
    if day is None and rest and (day := _day(rest[0])):
        rest, used = rest[1:], used + 1
    year = (
        rest[0].removeprefix("#")
        if rest and rest[0].startswith("#") and rest[0][1:].isdigit() and len(rest[0]) == 5
        else None
    )
    if day is None and year is None:
        return None
    return date_key(day, month, year), places[used + bool(year) - 1] + 1


def _day(key: str) -> int | None:
    number = key.removeprefix("#").removesuffix("th")
    return int(number) if key.startswith("#") and number.isdigit() and 0 < int(number) < 32 else None
