"""Numbers, units, dates and times as texts write them, each in one form. Pure."""

import re
from decimal import Decimal, InvalidOperation

from headrace.policies.reuse.lexicon import names_of


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
