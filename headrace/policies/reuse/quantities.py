"""Numbers, units, dates and times as texts write them, each in one form. Pure."""

import re
from decimal import Decimal, InvalidOperation

from headrace.policies.reuse.lexicon import names_of, units

_SYMBOLS = names_of(units.SYMBOLS)
#: Words for units, and the units' names.
WORDS = names_of(units.UNITS)
#: Names of months, and their numbers.
MONTHS = {word: int(number) for word, number in names_of(units.MONTHS).items()}
_NUMBERS = {word: int(number) for word, number in names_of(units.NUMBERS).items()}
_FACTORS = {word: int(number) for word, number in names_of(units.FACTORS).items()}
_ORDINALS = names_of(units.ORDINALS)

_NUMBER = re.compile(r"([$€£¥]?)([-+]?(?:\d[\d.,]*\d|\d|\.\d+))([^\d\s]*)")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th|\.)", re.IGNORECASE)
_TIME = re.compile(r"(\d{1,2})(?:[:.](\d{2}))?\s*([ap])\.?m\.?|(\d{1,2}):(\d{2})(?::\d{2})?", re.IGNORECASE)
_ISO_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_GERMAN_DATE = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")


def number_of(digits: str, is_german: bool) -> str | None:
    """The number that these digits write, in one form; None where its commas and points fit no convention."""
    point, comma = (",", ".") if is_german else (".", ",")
    if not re.fullmatch(rf"[-+]?(?:\d{{1,3}}(?:\{comma}\d{{3}})+|\d+)?(?:\{point}\d+)?", digits):
        return None
    try:
        value = Decimal(digits.replace(comma, "").replace(point, "."))
    except InvalidOperation:
        return None
    return shown(value)


def shown(value: Decimal) -> str:
    """A number without an exponent and without zeros at its end."""
    return f"{value.normalize():f}"


def quantity(token: str, is_german: bool) -> tuple[str, ...] | None:
    """The keys of a token that begins with a number or a currency: the number, and its unit; None for other tokens."""
    if date := _date(token):
        return (date,)
    if clock := _TIME.fullmatch(token):
        return (_clock(clock),)
    if ordinal := _ORDINAL.fullmatch(token):
        return (f"#{ordinal[1]}th",)
    if not (parts := _NUMBER.fullmatch(token)) or (number := number_of(parts[2], is_german)) is None:
        return None
    currency, unit = parts[1], parts[3]
    if unit in ("k", "K") and not currency.isalpha() and unit == "k":
        return (f"#{shown(Decimal(number) * 1000)}", *([unit_after(currency)] if currency else []))
    if unit and unit not in _SYMBOLS and unit.lower() not in WORDS:
        return None
    return (f"#{number}", *(unit_after(each) for each in (currency, unit) if each))


def unit_after(word: str) -> str:
    """The key of a word behind a number, which may be a unit's symbol. Other words stay as they are."""
    name = _SYMBOLS.get(word) or WORDS.get(word.lower())
    return f"unit:{name}" if name else word


def is_unit_after(word: str) -> bool:
    """Whether a word behind a number is a unit."""
    return word in _SYMBOLS or word.lower() in WORDS


def _date(token: str) -> str | None:
    if iso := _ISO_DATE.fullmatch(token):
        return date_key(int(iso[3]), int(iso[2]), iso[1])
    if german := _GERMAN_DATE.fullmatch(token):
        return date_key(int(german[1]), int(german[2]), german[3])
    return None


def date_key(day: int | None, month: int, year: str | None) -> str:
    """The key of a date, whole or in part."""
    return f"#date:{year or '*'}-{month:02}-{'*' if day is None else f'{day:02}'}"


def _clock(parts: re.Match[str]) -> str:
    if parts[4]:
        return f"#time:{int(parts[4])}:{parts[5]}"
    hour = int(parts[1]) % 12 + (12 if parts[3].lower() == "p" else 0)
    return f"#time:{hour}:{parts[2] or '00'}"


def spelled(words: list[str]) -> tuple[str, int] | None:
    """The number at the beginning of some words, and how many of them write it; None where they begin with none."""
    value, used, total = None, 0, 0
    for word in words:
        if word in _NUMBERS and _may_follow(_NUMBERS[word], value):
            value = (value or 0) + _NUMBERS[word]
        elif word in _FACTORS and value is not None:
            value *= _FACTORS[word]
            if _FACTORS[word] >= 1000:
                total, value = total + value, 0
        else:
            break
        used += 1
    return None if value is None else (f"#{total + value}", used)


def _may_follow(number: int, value: int | None) -> bool:
    """Whether a number may be added to what is read: "twenty" and "five", "hundred" and "ten", not "two" and "five"."""
    return not value or (number < 10 and value % 10 == 0 and value >= 20) or (value % 100 == 0)


def ordinal(word: str) -> str | None:
    """The key of an ordinal that is written as a word."""
    return f"#{_ORDINALS[word]}th" if word in _ORDINALS else None
