"""How `headrace scale` shows a pool in the terminal."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.text import Text

from headrace.cli.hosts import age
from headrace.cli.output import out
from headrace.cli.scale import chart
from headrace.cli.scale.chart import Lines
from headrace.cli.scale.overview import LATELY_S, PoolOverview
from headrace.domain.scaling import Action
from headrace.policies.scaling.calendar import Occurrence
from headrace.policies.scaling.horizon import Point
from headrace.store.fleet.decisions import DecisionRun, MadeDecision

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
    drawn = chart.draw(_lines(found), found.now, found.frame, width, chart_height)
    if drawn:
        parts += [Text.from_ansi(drawn), *_indented(_legend(found), width, Text(" " * chart.LEFT))]
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
        line.append(f"{lately.refused_jobs:,} jobs refused", style=LOUD if lately.refused_jobs else "")
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
    legend = Text(f"{chart.OFFERED} offered", style=chart.OFFERED_COLOR)
    if found.ahead is not None and found.ahead.points:
        legend.append(f"   {chart.EXPECTED} expected", style=chart.EXPECTED_COLOR)
    if rate is not None:
        hosts = f"{_hosts_of(_count(found))} x {rate:,.0f} tokens/s"
        legend.append(f"   {chart.CAPACITY} capacity: {hosts}", style=chart.CAPACITY_COLOR)
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
