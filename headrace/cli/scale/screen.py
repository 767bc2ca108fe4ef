"""How `headrace scale` shows a pool in the terminal, with a chart of the load, the forecast and the capacity."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from plotille import Figure
from rich.console import Group, RenderableType
from rich.text import Text

from headrace.cli.hosts import age
from headrace.cli.output import out
from headrace.cli.scale.overview import LATELY_S, Frame, PoolOverview
from headrace.domain.scaling import Action
from headrace.policies.scaling.horizon import Point
from headrace.policies.scaling.schedule import Occurrence
from headrace.store.fleet.decisions import DecisionRun, MadeDecision

#: The last label reaches so far to the right.
RIGHT = 5
#: How each line looks, so that they differ without colours.
OFFERED, EXPECTED, CAPACITY = "⠒⠒", "oo", "⠂⠂"
OFFERED_COLOR, EXPECTED_COLOR, CAPACITY_COLOR, NOW_COLOR = "bright_blue", "bright_magenta", "green", "yellow"
#: Steps between the labels of the rates, in powers of ten.
_STEPS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)

#: The chart is that far from the left.
LEFT = 13
#: So much is above the highest line, which is not seen at the very edge.
HEADROOM = 1.02
#: Rows of events.
MOST_EVENTS = 4

#: A time and tokens per second.
Rate = tuple[datetime, float]


@dataclass(frozen=True, slots=True)
class Lines:
    """What is drawn, each the oldest first; empty if unknown.

    Attributes:
        events: the start, the end and the name of each.
    """

    offered: Sequence[Rate]
    expected: Sequence[Rate]
    capacity: Sequence[Rate]
    events: Sequence[tuple[datetime, datetime, str]] = ()


def draw(lines: Lines, now: datetime, frame: Frame, width: int, height: int) -> str:
    """A chart with local times, with ANSI colours; empty if there is nothing to draw, or no room.

    Args:
        width: of the terminal.
        height: lines of the chart, without its axis.
    """
    minutes = frame.whole / timedelta(minutes=1)
    fitting = [each for each in frame.column_min if LEFT + minutes / each + RIGHT <= width]
    most = max((rate for line in (lines.offered, lines.expected) for _, rate in line), default=0.0)
    if not fitting or height < 1 or most <= 0:
        return ""
    start = frame.start(now, fitting[0])
    figure = Figure()
    figure.width, figure.height = math.ceil(minutes / fitting[0]), height
    figure.color_mode, figure.origin = "names", False
    figure.y_label = "tokens/s"
    step = _step(max([most, *(rate for _, rate in lines.capacity)]) * HEADROOM / height)
    figure.set_x_limits(0.0, minutes)
    figure.set_y_limits(0.0, step * height)
    figure.x_ticks_fkt = lambda minute, _: f"{(start + timedelta(minutes=minute)).astimezone():%H:%M}"
    figure.y_ticks_fkt = lambda rate, _: f"{rate:10,.10g}"
    capacity, offered, expected = (
        [(_minute(at, start), rate) for at, rate in line if start <= at <= start + frame.whole]
        for line in (lines.capacity, lines.offered, lines.expected)
    )
    figure.scatter(*_axes(_in_columns(capacity, fitting[0])), lc=CAPACITY_COLOR)
    figure.plot(*_axes(offered), lc=OFFERED_COLOR)
    figure.scatter(*_axes(_in_columns(expected, fitting[0])), lc=EXPECTED_COLOR, marker=EXPECTED[0])
    figure.axvline(_minute(now, start) / minutes, lc=NOW_COLOR)
    events = [
        _event_row(_minute(begin, start) / fitting[0], _minute(end, start) / fitting[0], name, figure.width)
        for begin, end, name in lines.events[:MOST_EVENTS]
    ]
    return _trimmed("\n".join([figure.show(), *filter(None, events)]), figure.width)


def _axes(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _in_columns(points: Sequence[tuple[float, float]], column: float) -> list[tuple[float, float]]:
    """One point for each column between these points, on the straight lines between them."""
    found = list[tuple[float, float]]()
    for (x, rate), (next_x, next_rate) in pairwise(points):
        for index in range(math.ceil(x / column - 0.25), math.ceil(next_x / column - 0.25)):
            # In the left half of its cell, so that no cell has two dots.
            at = (index + 0.25) * column
            found.append((at, rate + (next_rate - rate) * (at - x) / (next_x - x)))
    return found


def _minute(at: datetime, start: datetime) -> float:
    return (at - start) / timedelta(minutes=1)


def _step(least: float) -> float:
    """The smallest round number that is not below this one."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in _STEPS if factor * power >= least * (1 - 1e-9))


def _event_row(begin: float, end: float, name: str, width: int) -> str:
    """The columns of an event, such as `[launch  ]`; empty if the chart ends before it."""
    first, last = max(round(begin), 0), min(round(end), width)
    if first >= width:
        return ""
    return " " * (LEFT + first) + f"[{name.ljust(last - first - 2)}]"[: width + RIGHT - first]


def _trimmed(drawn: str, width: int) -> str:
    """The chart without the arrow of its axis, and with spaces for empty cells."""
    lines = (line.rstrip() for line in drawn.replace("\u2800", " ").splitlines())
    return "\n".join(line[: LEFT + width + 1] if line.startswith("-") else line for line in lines)


LOUD, CHANGE, FAINT = "bold red", "bold", "dim"
#: An applied decision that took no longer needs no remark.
AT_ONCE = timedelta(seconds=1)
#: The width of the headings.
INDENT = 9
#: The lines of a chart, without its axes.
CHART_HEIGHT = 8


def screen(found: PoolOverview, width: int, chart_height: int = CHART_HEIGHT) -> RenderableType:
    """All about one pool. Args: width: of the terminal. chart_height: 0 for no chart."""
    parts = [*_indented(_title(found), width, Text()), *_facts(found, width)]
    drawn = draw(_lines(found), found.now, found.frame, width, chart_height)
    if drawn:
        parts += [Text.from_ansi(drawn), *_indented(_legend(found), width, Text(" " * LEFT))]
    if found.runs:
        parts.append(Text("decisions", style="bold"))
        parts += [line for run in found.runs for line in _run(run, found, width)]
    return Group(*parts)


def _title(found: PoolOverview) -> Text:
    title = Text.assemble((f"pool {found.pool}", "bold"))
    if found.decision is not None:
        record = found.decision.record
        title.append(f"  {record.mode}, {record.policy}")
    if found.inputs is not None:
        title.append(f", {found.inputs.policy.min_hosts} to {found.inputs.policy.max_hosts} hosts")
    return title.append(f"  {found.now.astimezone():%a %d %b %H:%M:%S %Z}", style=FAINT)


def _facts(found: PoolOverview, width: int) -> Iterator[Text]:
    sections = (("seen", _seen(found)), ("wanted", _wanted(found)), ("hosts", _hosts(found)), ("ahead", _ahead(found)))
    for heading, lines in sections:
        label = Text(heading.ljust(INDENT), style="bold")
        for line in lines:
            yield from _indented(line, width, label)
            label = Text(" " * INDENT)


def _indented(line: Text, width: int, label: Text) -> Iterator[Text]:
    """The line in as many as it takes, beside its label."""
    for part in line.wrap(out, max(width - len(label), 20)):
        part.rstrip()
        yield Text.assemble(label, part)
        label = Text(" " * len(label))


def _seen(found: PoolOverview) -> Iterator[Text]:
    seen = found.seen
    if seen is None:
        yield Text("This pool was never observed. Are 'control' and 'beat' running?", style=LOUD)
        return
    if found.is_stale:
        old = age(found.now - seen.at)
        yield Text(f"STALE: the newest sample is {old} old. Are 'control' and 'beat' running?", style=LOUD)
    if seen.lately is not None:
        lately = seen.lately
        offered = (
            f"{lately.offered_jobs / lately.seconds:,.2f} jobs/s and {lately.offered_tokens / lately.seconds:,.0f}"
        )
        line = Text(f"{offered} tokens/s offered within {LATELY_S / 60:.0f} minutes: ")
        refused = lately.refused_jobs + lately.discounted_jobs
        line.append(f"{refused:,} jobs refused", style=LOUD if refused else "")
        if lately.discounted_jobs:
            line.append(f" ({lately.discounted_jobs:,} of them repeats or excess, which order no host)")
        yield line.append(f", {lately.spilled_jobs:,} sent to the paid API")
    wait = f", the oldest for {seen.oldest_wait_s:,.0f} s" if seen.depth else ""
    cache = "" if seen.kv_use is None else f", KV cache {seen.kv_use:.0%} full"
    aged = "" if found.is_stale else f"; sample {age(found.now - seen.at)} old"
    waiting = "1 job waits" if seen.depth == 1 else f"{seen.depth:,} jobs wait"
    yield Text(f"{waiting}{wait}; {seen.running:,} of {seen.slots:,} slots in use{cache}{aged}")


def _wanted(found: PoolOverview) -> Iterator[Text]:
    decision = found.decision
    if decision is None:
        yield Text("No decision was made yet. Are 'control' and 'beat' running?", style=LOUD)
        return
    record = decision.record
    made = f"decision {decision.id}, {age(found.now - decision.at)} ago"
    yield Text.assemble((change(record.action, record.hosts, record.target), CHANGE), f" ({made})")
    yield _reason(record.reason, record.action)
    done, style = outcome(decision, found.now)
    if done:
        yield Text(done, style=style)
    if found.failing is not None and found.failing.id != decision.id:
        done, style = outcome(found.failing, found.now)
        yield Text(f"decision {found.failing.id} ({_since(found.failing.at, found.now)}): {done}", style=style)
    if found.inputs is None:
        yield Text("Another version of the policies wrote its inputs: no forecast.", style=FAINT)


def change(action: str, hosts: int, target: int) -> str:
    """What a decision wants, in words."""
    return f"hold at {hosts}" if action == Action.HOLD else f"{action} from {hosts} to {target}"


def outcome(made: MadeDecision | DecisionRun, now: datetime) -> tuple[str, str]:
    """What became of a decision, and its style; empty if it changes nothing."""
    record = made.record if isinstance(made, MadeDecision) else made
    calls = f"{made.tries} {'call' if made.tries == 1 else 'calls'} of the provider"
    if record.action == Action.HOLD:
        return "", ""
    if record.mode != "active":
        return "not carried out: it was made in mode advisory", FAINT
    if made.applied_at is not None:
        took = made.applied_at - made.at
        after = f" after {took.total_seconds():,.0f} s" if took >= AT_ONCE else ""
        failed = f"; of {calls} some failed, the last with: {made.error}" if made.error else ""
        return f"applied{after}{failed}", LOUD if failed else ""
    if made.error:
        return f"not applied after {calls}: {made.error}", LOUD
    return "not applied yet" if now - made.at < timedelta(minutes=1) else f"not applied, {calls}", ""


def _hosts(found: PoolOverview) -> Iterator[Text]:
    counts = found.hosts
    line = Text(f"{counts.ready} ready, {counts.requested} requested, {counts.draining} draining")
    if found.usd_per_hour is not None:
        line.append(f"; {found.usd_per_hour:,.2f} USD per hour")
    if found.unpriced:
        line.append(f"; {found.unpriced} without a price", style=FAINT)
    yield line


def _ahead(found: PoolOverview) -> Iterator[Text]:
    if found.ahead is None:
        return
    points = found.ahead.points
    if points:
        yield Text(f"at {_clock(points[0].at, found.now)} {_expected(points[0])}")
        most = max(points, key=lambda each: each.tokens_per_s)
        if most.tokens_per_s > points[0].tokens_per_s:
            until = _clock(points[-1].at, found.now)
            yield Text(f"at {_clock(most.at, found.now)} {_expected(most)}, the most until {until}")
    for event in found.ahead.events:
        yield _event(event, found.now)
    for sentence in found.ahead.unknown:
        yield Text(sentence, style=FAINT)
    season_until = found.ahead.season_until
    if season_until is not None and points and season_until < points[-1].at:
        end = _clock(season_until, found.now)
        yield Text(f"The season is known until {end}. After that, the level continues.", style=FAINT)


def _expected(point: Point) -> str:
    hosts = "" if point.hosts is None else f", {_hosts_of(point.hosts)}"
    return f"{point.tokens_per_s:,.0f} tokens/s ({point.why}){hosts}"


def _hosts_of(count: int) -> str:
    return f"{count} {'host' if count == 1 else 'hosts'}"


def _event(each: Occurrence, now: datetime) -> Text:
    event = each.event
    what = _hosts_of(event.hosts) if event.hosts is not None else f"{event.jobs_per_s:g} jobs/s"
    span = f"{_clock(each.starts_at, now)} to {_clock(each.ends_at, now)}"
    return Text(f"event '{event.name}', {span}: {what}", style=CHANGE if each.starts_at <= now else "")


def _lines(found: PoolOverview) -> Lines:
    # A span's mean belongs to its middle.
    offered = [
        (span.at - timedelta(seconds=found.frame.span_s / 2), span.offered_tokens / span.seconds) for span in found.past
    ]
    points = [] if found.ahead is None else [(each.at, each.tokens_per_s) for each in found.ahead.points]
    rate = None if found.inputs is None else found.inputs.hosts.tokens_per_s
    capacity: list[tuple[datetime, float]] = []
    if rate is not None:
        capacity = [(span.at, span.hosts * rate) for span in found.past]
        capacity += [(at, _count(found) * rate) for at, _ in points]
    events = () if found.ahead is None else found.ahead.events
    return Lines(offered, points, capacity, [(each.starts_at, each.ends_at, each.event.name) for each in events])


def _count(found: PoolOverview) -> int:
    return found.hosts.ready + found.hosts.requested


def _legend(found: PoolOverview) -> Text:
    rate = None if found.inputs is None else found.inputs.hosts.tokens_per_s
    legend = Text(f"{OFFERED} offered", style=OFFERED_COLOR)
    if found.ahead is not None and found.ahead.points:
        legend.append(f"   {EXPECTED} expected", style=EXPECTED_COLOR)
    if rate is not None:
        hosts = f"{_hosts_of(_count(found))} x {rate:,.0f} tokens/s"
        legend.append(f"   {CAPACITY} capacity: {hosts}", style=CAPACITY_COLOR)
    return legend


def _run(run: DecisionRun, found: PoolOverview, width: int) -> Iterator[Text]:
    ids = str(run.id) if run.count == 1 else f"{run.first_id}-{run.id}"
    line = Text(change(run.action, run.hosts, run.target), style=CHANGE)
    if run.count > 1:
        line.append(f", {run.count} times since {_since(run.first_at, found.now)}")
    done, style = outcome(run, found.now)
    if done:
        line.append(", ").append(done, style=style)
    line.append(f" ({ids})", style=FAINT)
    yield from _indented(line, width, Text(f" {_since(run.at, found.now)} "))
    if found.decision is None or run.id != found.decision.id:
        yield from _indented(_reason(run.reason, run.action), width, Text(" " * (INDENT + 1)))


def _reason(reason: str, action: str) -> Text:
    """The reason without the action, which stands before it."""
    return Text(reason.removeprefix(f"{action}: "), style=FAINT)


def _since(at: datetime, now: datetime) -> str:
    """A past time, in local time."""
    local = at.astimezone()
    return f"{local:%H:%M:%S}" if now - at < timedelta(hours=20) else f"{local:%d %b %H:%M}"


def _clock(at: datetime, now: datetime) -> str:
    """A time near now, in local time."""
    local = at.astimezone()
    return f"{local:%H:%M}" if abs(at - now) < timedelta(hours=20) else f"{local:%d %b %H:%M}"
