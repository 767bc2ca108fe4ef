"""Bills from outside, and what differs between one and the ledger, day by day, and why. Pure.

A host's hours and the paid API's tokens are both a quantity that costs money, so one comparison serves both.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum

#: Errors above this share of a bill are an alert.
ALARM = Decimal("0.01")


class BillSource(StrEnum):
    """What a bill is for. HOSTS: hours of machines, each by its name. API: tokens of the paid API, by model."""

    HOSTS = "hosts"
    API = "api"


@dataclass(frozen=True, slots=True)
class BillLine:
    """One line of a bill. Two lines that are equal may be the same charge twice.

    Attributes:
        at: when what it charges began.
        name: of the machine, or of the model.
        kind: the machine's type; None for the paid API.
        hours: of a machine.
        prompt_tokens: cached ones included.
        usd: None if the line has no amount.
    """

    at: datetime
    name: str
    kind: str | None = None
    hours: Decimal = Decimal()
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: Decimal | None = None

    @property
    def day(self) -> date:
        """Its day of UTC."""
        return self.at.astimezone(UTC).date()


@dataclass(frozen=True, slots=True)
class OutsideBill:
    """The lines of one or more files of one source.

    Attributes:
        file: the files' names, for people.
        types: only hosts of these types are on it; empty: of all.
        listed: days that the files have, also those without a line.
    """

    source: BillSource
    file: str
    lines: Sequence[BillLine]
    types: Sequence[str] = ()
    listed: Sequence[date] = ()

    @property
    def days(self) -> tuple[date, date]:
        """Its first and its last day."""
        days = [*self.listed, *(line.day for line in self.lines)]
        return min(days), max(days)


class Cause(StrEnum):
    """Why the ledger and a bill differ.

    NONE: what both have. MISSING_HOST: the ledger has a host that the bill has not. UNKNOWN_HOST: the bill has one that
    the ledger has not. PRICE: the same quantity costs something else. HOURS: a host was billed for longer, or for less.
    DOUBLE: the bill has the same charge twice. UNBOOKED: the provider has more tokens than the ledger. OVERBOOKED: it
    has fewer. MIDNIGHT: the same amount is on another day. ROUNDING: too little to matter.
    """

    NONE = "none"
    MISSING_HOST = "missing_host"
    UNKNOWN_HOST = "unknown_host"
    PRICE = "price"
    HOURS = "hours"
    DOUBLE = "double"
    UNBOOKED = "unbooked"
    OVERBOOKED = "overbooked"
    MIDNIGHT = "midnight"
    ROUNDING = "rounding"


#: Causes that no one has to look into: nothing differs, or only when it was charged.
HARMLESS = frozenset({Cause.NONE, Cause.MIDNIGHT, Cause.ROUNDING})
#: Differences of a day that are rounding: of hours, of the share of tokens, and of the share of a price.
LEAST_HOURS, LEAST_TOKENS, LEAST_PRICE = Decimal("0.05"), Decimal("0.001"), Decimal("0.002")
#: The most that clocks in other time zones move over a midnight.
MOST_HOURS_MOVED = Decimal(14)
DAY_HOURS = 24


@dataclass(frozen=True, slots=True)
class Charge:
    """What one side has for one name and day.

    Attributes:
        quantity: hours, or tokens by their weight.
        usd: None if the export has no amounts.
        doubled: the part of the quantity in lines that are exactly like another line.
    """

    quantity: Decimal
    usd: Decimal | None
    doubled: Decimal = Decimal()


@dataclass(frozen=True, slots=True)
class Checked:
    """A part of what the ledger and the bill have for one name and day, with why it differs."""

    day: date
    name: str
    cause: Cause
    ledger_usd: Decimal = Decimal()
    billed_usd: Decimal = Decimal()
    ledger_quantity: Decimal = Decimal()
    billed_quantity: Decimal = Decimal()

    @property
    def difference_usd(self) -> Decimal:
        """What the bill has beyond the ledger."""
        return self.billed_usd - self.ledger_usd


Charges = Mapping[tuple[str, date], Charge]


def check(
    source: BillSource, ledger: Charges, bill: Charges, usd_per_unit: Mapping[str, Decimal] | None = None
) -> list[Checked]:
    """Compare both sides. The parts of each side add up to it.

    Args:
        ledger, bill: by name and day.
        usd_per_unit: prices by name, for a bill without amounts whose names the ledger does not have.
    """
    days: defaultdict[str, list[date]] = defaultdict(list)
    for name, day in sorted({*ledger, *bill}):
        days[name].append(day)
    found: list[Checked] = []
    for name, of_name in days.items():
        own = {day: ledger.get((name, day)) for day in of_name}
        theirs = _priced({day: bill.get((name, day)) for day in of_name}, own, (usd_per_unit or {}).get(name))
        found += _check_name(source, name, own, theirs)
    return found


def share(checked: Iterable[Checked]) -> Decimal:
    """All differences that someone has to look into, whatever their sign, as a part of the bill, also of a credit."""
    rows = list(checked)
    wrong = sum((abs(each.difference_usd) for each in rows if each.cause not in HARMLESS), Decimal())
    billed = sum((each.billed_usd for each in rows), Decimal())
    return wrong / abs(billed) if billed else Decimal(wrong != 0)


_Days = Mapping[date, Charge | None]


def _priced(bill: _Days, ledger: _Days, usd_per_unit: Decimal | None) -> dict[date, Charge | None]:
    """The bill with amounts: where it has none, the ledger's price of the day, or of all days, counts."""
    own = [each for each in ledger.values() if each is not None and each.quantity]
    if own:
        usd_per_unit = sum((each.usd or Decimal() for each in own), Decimal()) / sum(each.quantity for each in own)
    priced: dict[date, Charge | None] = {}
    for day, each in bill.items():
        of_day = ledger[day]
        unit = usd_per_unit or Decimal()
        if of_day is not None and of_day.quantity:
            unit = (of_day.usd or Decimal()) / of_day.quantity
        is_open = each is not None and each.usd is None
        priced[day] = replace(each, usd=each.quantity * unit) if each is not None and is_open else each
    return priced


def _check_name(source: BillSource, name: str, ledger: _Days, bill: _Days) -> Iterator[Checked]:
    single = {day: _without_doubles(source, ledger[day], bill[day]) for day in bill}
    moved = _moved(source, {day: _more(ledger[day], single[day]) for day in sorted(bill)}, ledger)
    for day in sorted(bill):
        own, theirs, all_of_it = ledger[day], single[day], bill[day]
        if theirs is not None and all_of_it is not None and theirs != all_of_it:
            usd = (all_of_it.usd or Decimal()) - (theirs.usd or Decimal())
            yield Checked(day, name, Cause.DOUBLE, billed_usd=usd, billed_quantity=all_of_it.quantity - theirs.quantity)
        yield from _check_day(source, Checked(day, name, Cause.NONE), own, theirs, is_moved=day in moved)


def _more(ledger: Charge | None, bill: Charge | None) -> Decimal:
    return (bill.quantity if bill else Decimal()) - (ledger.quantity if ledger else Decimal())


def _without_doubles(source: BillSource, ledger: Charge | None, bill: Charge | None) -> Charge | None:
    """The bill without what it has twice: lines that are alike, or exactly double of what the ledger has."""
    if ledger is None or bill is None or not bill.quantity or bill.usd is None:
        return bill
    more = bill.quantity - ledger.quantity
    least = _least(source, ledger)
    doubled = min(bill.doubled, more)
    # A host that ran twice as long as the ledger knows is none, unless that is more than a day.
    if abs(more - ledger.quantity) <= least and (source is BillSource.API or bill.quantity > DAY_HOURS + least):
        doubled = more
    if doubled <= least:
        return bill
    return Charge(bill.quantity - doubled, bill.usd * (bill.quantity - doubled) / bill.quantity)


def _least(source: BillSource, ledger: Charge | None) -> Decimal:
    if source is BillSource.HOSTS:
        return LEAST_HOURS
    return LEAST_TOKENS * ledger.quantity if ledger else Decimal()


def _moved(source: BillSource, more: Mapping[date, Decimal], ledger: _Days) -> set[date]:
    """The days whose differences cancel with those of days after them: the same amount on another day."""
    differing = [(day, each) for day, each in more.items() if abs(each) > _least(source, ledger[day])]
    moved: set[date] = set()
    for begin, (first, _) in enumerate(differing):
        total = Decimal()
        for number, (day, each) in enumerate(differing[begin:]):
            # Tokens come each day, so only neighbours can have exchanged some.
            if day in moved or (source is BillSource.API and (day - first).days > number):
                break
            total += each
            if source is BillSource.HOSTS and abs(total) > MOST_HOURS_MOVED:
                break
            if number and abs(total) <= _least(source, ledger[day]):
                moved.update(each_day for each_day, _ in differing[begin : begin + number + 1])
                break
    return moved


def _check_day(
    source: BillSource, at: Checked, ledger: Charge | None, bill: Charge | None, *, is_moved: bool
) -> Iterator[Checked]:
    own, theirs = ledger or Charge(Decimal(), Decimal()), bill or Charge(Decimal(), Decimal())
    own_usd, their_usd = own.usd or Decimal(), theirs.usd or Decimal()
    if not own.quantity or not theirs.quantity:
        # A fee has no hours.
        is_billed = bool(theirs.quantity) or ledger is None
        cause = Cause.MIDNIGHT if is_moved else _alone(source, is_billed=is_billed)
        yield replace(
            at,
            cause=cause,
            ledger_usd=own_usd,
            billed_usd=their_usd,
            ledger_quantity=own.quantity,
            billed_quantity=theirs.quantity,
        )
        return
    yield replace(
        at,
        ledger_usd=own_usd,
        billed_usd=own_usd,
        ledger_quantity=own.quantity,
        billed_quantity=own.quantity,
    )
    more = theirs.quantity - own.quantity
    # At their price, so that the rest is what the ledger's quantity costs at the other price.
    more_usd = more * their_usd / theirs.quantity
    if more or more_usd:
        cause = Cause.MIDNIGHT if is_moved else _quantity(source, more, _least(source, own))
        yield replace(at, cause=cause, billed_usd=more_usd, billed_quantity=more)
    if dearer := their_usd - own_usd - more_usd:
        is_price = own_usd == 0 or abs(dearer / own_usd) > LEAST_PRICE
        yield replace(at, cause=Cause.PRICE if is_price else Cause.ROUNDING, billed_usd=dearer)


def _alone(source: BillSource, *, is_billed: bool) -> Cause:
    """Why only one side has it."""
    if source is BillSource.HOSTS:
        return Cause.UNKNOWN_HOST if is_billed else Cause.MISSING_HOST
    return Cause.UNBOOKED if is_billed else Cause.OVERBOOKED


def _quantity(source: BillSource, more: Decimal, least: Decimal) -> Cause:
    if abs(more) <= least:
        return Cause.ROUNDING
    if source is BillSource.HOSTS:
        return Cause.HOURS
    return Cause.UNBOOKED if more > 0 else Cause.OVERBOOKED


def by_cause(checked: Sequence[Checked]) -> dict[Cause, Decimal]:
    """The difference by cause, the largest first."""
    sums: defaultdict[Cause, Decimal] = defaultdict(Decimal)
    for each in checked:
        if each.cause is not Cause.NONE:
            sums[each.cause] += each.difference_usd
    return dict(sorted(sums.items(), key=lambda item: -abs(item[1])))
