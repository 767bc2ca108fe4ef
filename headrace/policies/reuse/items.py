"""Cuts a text into items: words, numbers, verbatim spans and the ends of clauses. Pure.

Numbers, units, dates and times get one form each, however they are written. Verbatim is what must agree to the letter:
code, quoted text, names of files, addresses, signs such as `+`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import Enum

from headrace.policies.reuse.lexicon import names_of, normal_form, words_of


def _numbers_of(text: str) -> dict[str, int]:
    """Each word of a list of `number = word word`, and its number."""
    return {word: int(number) for word, number in names_of(text).items()}


# As they are written, in both languages: `name = form form`.

#: Symbols that stand behind a number: `m` is no `M`, and `Mb` no `MB`.
_SYMBOLS = names_of(
    """
meter = m; kilometer = km; centimeter = cm; millimeter = mm; nanometer = nm; micrometer = µm; mile = mi; foot = ft
inch = ″; yard = yd; gram = g; kilogram = kg KG; milligram = mg; pound-weight = lb lbs; ounce = oz; tonne = t
liter = l L; milliliter = ml mL; centiliter = cl; gallon = gal; second = s sec; millisecond = ms; minute = min
hour = h hr hrs; day = d; celsius = °C C; fahrenheit = °F F; kelvin = K; degree = °; percent = %; byte = B; bit = b
kilobyte = KB kB; megabyte = MB; gigabyte = GB; terabyte = TB; kilobit = kb Kb; megabit = Mb; gigabit = Gb
mebibyte = MiB; gibibyte = GiB; watt = W; kilowatt = kW; megawatt = MW; milliwatt = mW; kilowatt-hour = kWh
volt = V; ampere = A; hertz = Hz; kilohertz = kHz; megahertz = MHz; gigahertz = GHz; joule = J; calorie = cal
kilocalorie = kcal; km/h = km/h kph kmh; mile/h = mph; m/s = m/s; dollar = $ USD; euro = € EUR; sterling = £ GBP
yen = ¥ JPY; franc = CHF; hectare = ha; pixel = px; pascal = Pa; bar = bar; newton = N; kilonewton = kN
"""
)
#: Words for units, wherever they stand, and the units' names.
WORDS = names_of(
    """
meter = meter metre meters metres metern; kilometer = kilometer kilometre kilometers kilometres kilometern km kms
centimeter = centimeter centimetre centimeters centimetres zentimeter zentimetern cm
millimeter = millimeter millimetre millimeters millimetres mm; mile = mile miles meile meilen; foot = foot feet ft
inch = inch inches zoll; yard = yard yards; gram = gram grams gramm
kilogram = kilogram kilograms kilogramm kilo kilos kg kgs; milligram = milligram milligrams milligramm mg
ounce = ounce ounces unze unzen oz; tonne = tonne tonnes tonnen; liter = liter litre liters litres litern
milliliter = milliliter millilitre milliliters millilitres ml; gallon = gallon gallons gallone gallonen
second = second seconds sekunde sekunden sec secs; millisecond = millisecond milliseconds millisekunden ms
minute = minute minutes minuten mins; hour = hour hours stunde stunden hrs; day = day days tag tage tagen
week = week weeks woche wochen; month = month months monat monate monaten; year = year years jahr jahre jahren
celsius = celsius centigrade; fahrenheit = fahrenheit; kelvin = kelvin; degree = degree degrees grad
percent = percent percentage prozent; byte = byte bytes; bit = bits; kilobyte = kilobyte kilobytes kb
megabyte = megabyte megabytes; gigabyte = gigabyte gigabytes; terabyte = terabyte terabytes
dollar = dollar dollars usd buck bucks; euro = euro euros eur; yen = yen jpy; sterling = gbp; franc = franken chf
watt = watt watts; kilowatt = kilowatt kilowatts kw; calorie = calorie calories kalorien; km/h = km/h kph kmh
mile/h = mph; teaspoon = teaspoon teaspoons tsp teelöffel; tablespoon = tablespoon tablespoons tbsp esslöffel
cup = cup cups tasse tassen; o-clock = o'clock uhr; hectare = hectare hectares hektar; acre = acre acres
"""
)
#: Names of months, and their numbers. `may` is a month only where a number or a capital says so.
MONTHS = _numbers_of(
    """
1 = january jan januar; 2 = february feb februar; 3 = march mar märz; 4 = april apr; 5 = may mai; 6 = june jun juni
7 = july jul juli; 8 = august aug; 9 = september sep sept; 10 = october oct oktober okt; 11 = november nov
12 = december dec dezember dez
"""
)
_NUMBERS = _numbers_of(
    """
0 = zero null; 1 = one; 2 = two zwei; 3 = three drei; 4 = four vier; 5 = five fünf; 6 = six sechs; 7 = seven sieben
8 = eight acht; 9 = nine neun; 10 = ten zehn; 11 = eleven elf; 12 = twelve zwölf; 13 = thirteen dreizehn
14 = fourteen vierzehn; 15 = fifteen fünfzehn; 16 = sixteen sechzehn; 17 = seventeen siebzehn
18 = eighteen achtzehn; 19 = nineteen neunzehn; 20 = twenty zwanzig; 30 = thirty dreißig; 40 = forty vierzig
50 = fifty fünfzig; 60 = sixty sechzig; 70 = seventy siebzig; 80 = eighty achtzig; 90 = ninety neunzig
"""
)
_FACTORS = _numbers_of(
    """
100 = hundred hundert; 1000 = thousand tausend; 1000000 = million millionen
1000000000 = billion milliarde milliarden; 1000000000000 = trillion
"""
)
_ORDINALS = names_of(
    """
1 = first; 2 = second; 3 = third; 4 = fourth; 5 = fifth; 6 = sixth; 7 = seventh; 8 = eighth; 9 = ninth; 10 = tenth
11 = eleventh; 12 = twelfth
"""
)

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


#: Quotation marks, apostrophes and dashes, each as ASCII has it.
_ASCII = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2018\u2019\u201a\u2039\u203a\u00b4", "'"),
        **dict.fromkeys("\u2013\u2014\u2212", "-"),
    }
)
#: A placeholder of a verbatim span: characters of private use, which texts do not have.
_FIRST, _LAST = 0xE000, 0xF8FF
_SPAN = re.compile(r"```.*?```|~~~.*?~~~|`[^`\n]+`|\"[^\"\n]+\"|(?<!\w)'[^'\n]+'(?!\w)", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*\.?")
_OPEN, _CLOSE = "([{<\"'", ")]}>\"'"
#: Clause-ending signs; a hyphen between spaces is a dash.
_ENDS = ",;:.!?…-"
#: The same, apart from any word; a point by itself is a folder.
_LONE_ENDS = frozenset([",", ";", ":", "!", "?", "…", "...", "--"])
#: What is written short, or in several ways, and how it reads in full, in this order.
_IN_FULL = r"""
\bcan't\b|\bcannot\b|\bcant\b => can not
\bwon't\b|\bwont\b => will not
\bshan't\b => shall not
\b(do|does|did|is|are|was|were|has|have|had|would|should|could|must|need)n'?t\b => \1 not
\bain't\b => is not
\bI'm\b|\bim\b(?= ) => I am
(\w)'re\b => \1 are
(\w)'ve\b => \1 have
(\w)'ll\b => \1 will
(\w)'d\b => \1 would
\b(what|how|who|where|when|why|it|that|there|he|she)'s\b => \1 is
\b(what|how|who|where)s\b => \1 is
\blet's\b => let us
(?<=s)'(?=\s) =>  's
(\w)'s\b => \1 's
\b(?:am|is|are|was|were|be) (?:unable|not able) to\b => can not
\b(?:unable|not able) to\b => not
\b(fails?|failed|refuses?|refused) to\b => does not
\b(?:pls|plz)\b => please
\bhow do u\b => how do you
\b2fa\b => two-factor authentication
\bin order to\b => to
\bdo they\b => do people
\bturn (\S+|\S+ \S+|\S+ \S+ \S+) into\b => convert \1 to
\b(my|your|his|her|our|their) own\b => \1
\bthe (?:word|term|phrase|expression|abbreviation|acronym)(?= (?!of\b|for\b|in\b|that\b|to\b|is\b|count)\S) => the
\b(?:right now|at the moment|these days|at present|as of now)\b => currently
\bin (?:simple|plain|easy|layman's) (?:terms|words|language|english)\b => simply
\b(?:each|every|per)(?= (?:day|week|month|year|hour|minute|night|morning|person)\b) => a
\bdaily\b => a day
\bweekly\b => a week
\bmonthly\b => a month
\b(?:yearly|annually)\b => a year
\b(?:type|kind|sort)s? of\b => the
\b(?:wie geht's)\b => wie geht es
\bgibt's\b => gibt es
"""
_CONTRACTIONS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, _, replacement in (line.partition(" => ") for line in _IN_FULL.strip().splitlines())
]


class Kind(Enum):
    WORD = "word"
    NUMBER = "number"
    VERBATIM = "verbatim"
    OWNER = "owner"  # the 's of "France's capital"
    END = "end"


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of a text.

    Attributes:
        text: as it is written, or the key of a number.
        is_first: it begins a sentence, so that its capital says nothing.
    """

    kind: Kind
    text: str
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class Masked:
    """A text whose verbatim spans are placeholders."""

    text: str
    spans: tuple[str, ...]


def mask(text: str) -> Masked:
    """Take the verbatim spans out of a text, and write out what is contracted in the rest."""
    text = normal_form("NFKC", text).translate(_ASCII)
    spans: list[str] = []

    def placeholder(found: re.Match[str]) -> str:
        if len(spans) > _LAST - _FIRST:
            return " "
        spans.append(_bare(found[0]))
        return f" {chr(_FIRST + len(spans) - 1)} "

    text = re.sub(rf"[{chr(_FIRST)}-{chr(_LAST)}]", " ", text)
    text = _SPAN.sub(placeholder, text)
    for pattern, replacement in _CONTRACTIONS:
        text = pattern.sub(replacement, text)
    return Masked(text.strip(), tuple(spans))


def _bare(span: str) -> str:
    """A span without its marks, so that one kind of quotes equals another. Code keeps its inner spaces."""
    for mark in ("```", "~~~", "`", '"', "'"):
        if span.startswith(mark):
            return span[len(mark) : -len(mark)].strip().rstrip(".,")
    return span


def sentences(text: str) -> list[str]:
    """The sentences of a masked text, with the signs at their ends. Points inside numbers and names do not end one."""
    return [
        part.strip() for part in re.split(r"(?<=[.!?])\s+(?=[^\W\d_a-zäöü]|[\ue000-\uf8ff])|\n+", text) if part.strip()
    ]


def items(sentence: str, spans: tuple[str, ...], is_german: bool) -> list[Item]:
    """Cut one sentence of a masked text into items."""
    cut: list[Item] = []
    is_first = True
    tokens = sentence.split()
    for at, token in enumerate(tokens):
        core, is_end = (token, False) if token == "'s" else _stripped(token)
        if not core:
            is_dash = token == "-" and at + 1 < len(tokens)
            cut.append(Item(Kind.END if is_dash or token in _LONE_ENDS else Kind.VERBATIM, token))
            continue
        cut += _of_token(core, spans, is_german, is_first)
        is_first = False
        if is_end:
            cut.append(Item(Kind.END, token[-1]))
    return cut


def _stripped(token: str) -> tuple[str, bool]:
    """A token without the punctuation around it, and whether that ends a clause."""
    start, end = 0, len(token)
    while start < end and token[start] in _OPEN and _closing(token[start]) not in token[start + 1 : end]:
        start += 1
    if end - start > 2 and token[start] == "(" and token[end - 1] in ").,;!?" and token.count("(") == 1:
        start, end = start + 1, token.rindex(")") if ")" in token else end
    while end > start and (token[end - 1] in ",;:!?…." or _is_stray(token[start:end])):
        end -= 1
    return token[start:end], bool(set(token[end:]) & set(_ENDS))


def _closing(sign: str) -> str:
    return _CLOSE[_OPEN.index(sign)]


def _is_stray(token: str) -> bool:
    """Whether a token ends with a bracket that it does not open."""
    return token[-1] in ")]}" and token.count(token[-1]) > token.count(_OPEN[_CLOSE.index(token[-1])])


def _of_token(core: str, spans: tuple[str, ...], is_german: bool, is_first: bool) -> list[Item]:
    if len(core) == 1 and _FIRST <= ord(core) <= _LAST:
        return [Item(Kind.VERBATIM, spans[ord(core) - _FIRST])]
    if core == "'s":
        return [Item(Kind.OWNER, core)]
    if core == "&":
        return [Item(Kind.WORD, "and")]
    if keys := quantity(core, is_german):
        return [Item(Kind.NUMBER, key) for key in keys]
    if counted := re.fullmatch(r"(\d+)-([a-zäöü]+)", core):
        return [Item(Kind.NUMBER, f"#{counted[1]}"), Item(Kind.WORD, counted[2])]
    if _is_name_in_letters(core):
        return [Item(Kind.WORD, core, is_first)]
    if _WORD.fullmatch(core) and not re.search(r"[a-zäöüß][A-ZÄÖÜ]", core):
        return [Item(Kind.WORD, core, is_first)]
    # Outside code a name such as Node.js or YouTube may be written in any case; what looks like code may not.
    is_name = re.fullmatch(r"[\w.+#'-]*", core) and not re.match(r"-|[a-z]+[A-Z]|.*_", core)
    return [Item(Kind.VERBATIM, core.casefold() if is_name else core)]


def _is_name_in_letters(core: str) -> bool:
    """Abbreviations with points: U.S., e.g., Ph.D."""
    return bool(re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]?\.?", core)) and len(core) > 2


# Items that write one number, quantity, time or date are joined.

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
        if date := _date_at(items, at):
            key, length = date
            out.append(Item(Kind.NUMBER, key))
            at += length
            continue
        length = 1
        is_after_number = bool(out) and out[-1].kind is Kind.NUMBER and out[-1].text.startswith("#")
        if item.kind is Kind.WORD and is_after_number and item.text.lower() in ("am", "pm"):
            out[-1] = _on_the_clock(out[-1], item.text.lower())
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


def _on_the_clock(number: Item, half: str) -> Item:
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


def _date_at(items: Sequence[Item], at: int) -> tuple[str, int] | None:
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
