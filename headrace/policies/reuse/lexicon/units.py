"""Units, numbers and months as they are written, in both languages: `name = form form`."""

#: Symbols that stand behind a number, as they are written: `m` is no `M`, and `Mb` no `MB`.
SYMBOLS = """
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

#: Words for the same units, wherever they stand.
UNITS = """
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

#: By their numbers. `may` is a month only where a number or a capital says so.
MONTHS = """
1 = january jan januar; 2 = february feb februar; 3 = march mar märz; 4 = april apr; 5 = may mai; 6 = june jun juni
7 = july jul juli; 8 = august aug; 9 = september sep sept; 10 = october oct oktober okt; 11 = november nov
12 = december dec dezember dez
"""

NUMBERS = """
0 = zero null; 1 = one; 2 = two zwei; 3 = three drei; 4 = four vier; 5 = five fünf; 6 = six sechs; 7 = seven sieben
8 = eight acht; 9 = nine neun; 10 = ten zehn; 11 = eleven elf; 12 = twelve zwölf; 13 = thirteen dreizehn
14 = fourteen vierzehn; 15 = fifteen fünfzehn; 16 = sixteen sechzehn; 17 = seventeen siebzehn
18 = eighteen achtzehn; 19 = nineteen neunzehn; 20 = twenty zwanzig; 30 = thirty dreißig; 40 = forty vierzig
50 = fifty fünfzig; 60 = sixty sechzig; 70 = seventy siebzig; 80 = eighty achtzig; 90 = ninety neunzig
"""

FACTORS = """
100 = hundred hundert; 1000 = thousand tausend; 1000000 = million millionen
1000000000 = billion milliarde milliarden; 1000000000000 = trillion
"""

ORDINALS = """
1 = first; 2 = second; 3 = third; 4 = fourth; 5 = fifth; 6 = sixth; 7 = seventh; 8 = eighth; 9 = ninth; 10 = tenth
11 = eleventh; 12 = twelfth
"""
