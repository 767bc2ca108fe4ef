"""`headrace costs reconcile` on a real Postgres: each kind of file, and what becomes of the result."""

import gzip
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.config import CostSettings
from headrace.domain.ids import new_id
from headrace.store import Store, locks
from headrace.store.money import cost_hours
from headrace.store.money import host_hours as host_bills
from headrace.tables import hosts, ledger
from plugins.bills import store as bills
from plugins.bills.tables import bill_checks
from plugins.bills.tables import bills as bill_rows
from tests.waiting import until

Run = Callable[..., Result]
File = Callable[..., Path]
#: Over, and in the last 35 days.
TODAY = datetime.now(UTC).date()
DAY = TODAY - timedelta(days=3)
NEXT = DAY + timedelta(days=1)
AWS = (
    "identity/LineItemId,lineItem/LineItemType,lineItem/UsageStartDate,lineItem/ResourceId,lineItem/UsageType,"
    "lineItem/Operation,lineItem/UsageAmount,lineItem/UnblendedCost,product/instanceType,"
    "resourceTags/aws:autoScalingGroupName,resourceTags/user:team\n"
)


def at(day: date, hour: float = 0) -> datetime:
    return datetime.combine(day, time(), UTC) + timedelta(hours=hour)


@pytest.fixture
def file(tmp_path: Path) -> File:
    """Writes a file of this name."""

    def write(name: str, *lines: str) -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def booked(store: Store) -> None:
    """A machine `i-1` of 4 USD an hour for 24 hours, which two pools share, and two calls of the paid API."""
    began, ended = at(DAY, 12), at(NEXT, 12)
    lease = {"usd_per_hour": 4, "requested_at": began, "ordered_at": began, "ready_at": began, "ended_at": ended}
    more = {"instance_type": "g6.xlarge", "end_reason": "gone"}
    with store.begin() as db:
        db.execute(sa.insert(hosts).values(id="host-1", pool="chat", provider_id="i-1", **lease, **more))
        db.execute(sa.insert(hosts).values(id="guest", pool="embed", provider_id="i-1", **lease, **more))
        call = {"kind": "api", "model": "gpt-4o-mini", "pool": "chat", "prompt_tokens": 1000, "output_tokens": 100}
        row = {**call, "usd": Decimal("0.00021"), "at": at(DAY, 1)}
        db.execute(sa.insert(ledger), [{**row, "job_id": new_id()} for _ in range(2)])
        cost_hours.open_bills(db)


def found(result: Result) -> list[tuple[Any, ...]]:
    rows = json.loads(result.stdout)["checks"]
    return [
        (each["day"], each["pool"], each["name"], each["cause"], float(each["difference_usd"]))
        for each in rows
        if each["cause"] != "none"
    ]


@pytest.mark.usefixtures("booked")
def test_a_bill_that_is_what_the_ledger_says_is_no_difference(run: Run, file: File, store: Store) -> None:
    bill = file("bill.csv", "day,host,type,hours,usd", f"{DAY},i-1,g6.xlarge,12,48", f"{NEXT},host-1,,12,48.00")

    result = run("costs", "reconcile", "--bill", str(bill))

    assert (result.exit_code, result.stdout.strip()) == (
        0,
        "Billed 96.0000 USD; the ledger has 96.0000 USD. Errors: 0.00% of the bill.",
    )
    with store.read() as db:
        assert bills.difference_shares(db) == {"hosts": 0}
        [row] = db.execute(sa.select(bill_rows))
    assert (row.file, row.lines, row.first_day, row.last_day, row.billed_usd) == ("bill.csv", 2, DAY, NEXT, 96)


@pytest.mark.usefixtures("booked")
def test_differences_are_shared_by_pools_kept_and_replaced(run: Run, file: File, store: Store) -> None:
    wrong = file(
        "bill.csv",
        "day,host,type,hours,usd",
        *(f"{DAY},i-1,g6.xlarge,12,60", f"{NEXT},i-1,g6.xlarge,16,64", f"{NEXT},ghost,g6.xlarge,2,8"),
    )

    result = run("costs", "reconcile", "--bill", str(wrong), "--json")

    assert result.exit_code == 1
    assert found(result) == [
        (f"{NEXT}", None, "ghost", "unknown_host", 8),
        (f"{DAY}", "chat", "i-1", "price", 6),
        (f"{DAY}", "embed", "i-1", "price", 6),
        (f"{NEXT}", "chat", "i-1", "hours", 8),
        (f"{NEXT}", "embed", "i-1", "hours", 8),
    ]
    with store.read() as db:
        view = "SELECT cause, sum(difference_usd) FROM bill_differences WHERE cause <> 'none' GROUP BY 1 ORDER BY 1"
        assert [tuple(row) for row in db.execute(sa.text(view))] == [("hours", 16), ("price", 12), ("unknown_host", 8)]
        assert bills.difference_shares(db) == {"hosts": pytest.approx(Decimal(36) / 132)}
        assert [each.cause for each in bills.differences(db, at(DAY), at(TODAY), 2)] == ["unknown_host", "hours"]
        [month] = bills.sums(db, at(DAY), at(TODAY))
        assert (month.ledger_usd, month.billed_usd) == (96, 132)

    text = run("costs", "reconcile", "--bill", str(wrong))
    assert (text.exit_code, "Errors: 27.27% of the bill." in text.stdout) == (1, True)
    run("costs", "reconcile", "--bill", str(file("b.csv", "day,host,type,hours,usd", f"{NEXT},i-1,,12,48")))
    with store.read() as db:
        assert set(db.scalars(sa.select(bill_checks.c.cause).where(bill_checks.c.day == at(NEXT)))) == {"none"}
        assert "price" in set(db.scalars(sa.select(bill_checks.c.cause)))


@pytest.mark.usefixtures("booked")
def test_a_host_that_is_on_no_bill_is_missing_unless_it_is_owned_or_of_another_type(
    run: Run, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    bill = file("bill.csv", "day,host,type,hours,usd", f"{DAY},other,t4,1,1")
    arguments = ("costs", "reconcile", "--bill", str(bill), "--json")

    assert [row[2:4] for row in found(run(*arguments))] == [
        *[("i-1", "missing_host")] * 2,
        ("other", "unknown_host"),
    ]
    assert [row[2:4] for row in found(run(*arguments, "--type", "t4"))] == [("other", "unknown_host")]
    own = {"name": "i-1", "type": "g6.xlarge", "since": at(DAY).isoformat(), "pools": ["chat"]}
    monkeypatch.setenv("HEADRACE_OWNED_HOSTS", json.dumps([own]))
    monkeypatch.setenv("HEADRACE_HOSTS", json.dumps({"g6.xlarge": {"usd_per_hour": 4}}))
    assert [row[2:4] for row in found(run(*arguments))] == [("other", "unknown_host")]


@pytest.mark.usefixtures("booked")
def test_a_lease_that_was_corrected_later_than_the_sweeps_look_counts_in_the_next_check(
    run: Run, file: File, store: Store
) -> None:
    long_ago = DAY - 4 * host_bills.REVISE
    with store.begin() as db:
        db.execute(sa.update(hosts).values(ordered_at=at(long_ago), ended_at=at(long_ago, 10)))
        db.execute(sa.update(hosts).where(hosts.c.id == "guest").values(ordered_at=at(DAY), ended_at=at(NEXT)))
        cost_hours.open_bills(db)
    bill = file("bill.csv", "day,host,type,hours,usd", f"{long_ago},i-1,,10,50")
    assert [row[3:] for row in found(run("costs", "reconcile", "--bill", str(bill), "--json"))] == [("price", 10)]
    with store.begin() as db:
        db.execute(sa.update(hosts).values(usd_per_hour=5))
        cost_hours.open_bills(db)

    assert run("costs", "reconcile", "--bill", str(bill)).exit_code == 0


@pytest.mark.usefixtures("booked")
@pytest.mark.parametrize("is_second", [False, True], ids=["lineItem", "line_item"])
def test_the_report_of_aws_is_read(run: Run, tmp_path: Path, is_second: bool) -> None:
    header = AWS
    if is_second:
        header = (
            "identity_line_item_id,line_item_line_item_type,line_item_usage_start_date,line_item_resource_id,"
            "line_item_usage_type,line_item_operation,line_item_usage_amount,line_item_unblended_cost,"
            "product_instance_type,resource_tags\n"
        )
    hours = [at(DAY, 12 + number) for number in range(24)]
    run_of = (
        "a,{kind},{hour:%Y-%m-%dT%H:%M:%SZ},{name},EUC1-BoxUsage:g6.xlarge,RunInstances,1,{usd},g6.xlarge,{group},x"
    )
    lines = [run_of.format(kind="Usage", hour=hour, name="i-1", usd=4, group="chat") for hour in hours]
    lines += [lines[0].replace("a,", "b,", 1)]
    lines += [run_of.format(kind="Usage", hour=hours[0], name="i-2", usd=9, group="web")]
    lines += [run_of.format(kind="Tax", hour=hours[0], name="i-1", usd=9, group="chat")]
    disk = f"c,Usage,{hours[0]:%Y-%m-%dT%H:%M:%SZ},vol-1,EUC1-EBS:VolumeUsage.gp3,CreateVolume-Gp3,1,9,,chat,x"
    path = tmp_path / "cur.csv.gz"
    text = header + "\n".join([*lines, disk]) + "\n"
    if is_second:
        tags = r'"{""aws_auto_scaling_group_name"": ""\1"", ""user_team"": ""x""}"'
        text = re.sub(r"(\w+),x$", tags, text, flags=re.MULTILINE)
    path.write_bytes(gzip.compress(text.encode()))
    arguments = ("costs", "reconcile", "--bill", str(path), "--json")

    # One hour is on it twice; a machine of another group is not ours.
    tagged = run(*arguments, "--tag", "aws:autoScalingGroupName=chat", "--tag", "team=x")
    assert [row[1:] for row in found(tagged)] == [("chat", "i-1", "double", 2), ("embed", "i-1", "double", 2)]
    assert ("i-2", "unknown_host") in [row[2:4] for row in found(run(*arguments))]


@pytest.mark.usefixtures("booked")
def test_a_day_that_the_provider_lists_without_a_call_is_compared(run: Run, tmp_path: Path) -> None:
    tokens = {"model": "gpt-4o-mini", "input_tokens": 1, "output_tokens": 1, "num_model_requests": 1}
    days = [(DAY - timedelta(days=1), [tokens]), (DAY, []), (NEXT, [])]
    page = {"data": [{"start_time": int(at(day).timestamp()), "results": results} for day, results in days]}
    bill = tmp_path / "usage.json"
    bill.write_text(json.dumps({**page, "has_more": False}), encoding="utf-8")

    causes = [(row[0], row[3]) for row in found(run("costs", "reconcile", "--bill", str(bill), "--json"))]

    assert (f"{DAY}", "overbooked") in causes


def test_a_bill_with_further_pages_is_refused_by_its_field(run: Run, tmp_path: Path) -> None:
    tokens = {"model": "gpt-4o-mini", "input_tokens": 1, "output_tokens": 1, "num_model_requests": 1}
    bill = tmp_path / "usage.json"
    page = {"data": [{"start_time": int(at(DAY).timestamp()), "results": [tokens]}], "has_more": True}
    bill.write_text(json.dumps({**page, "next_page": "page_2"}), encoding="utf-8")

    result = run("costs", "reconcile", "--bill", str(bill))

    assert result.exit_code == 1
    assert "'has_more': true" in result.output
    assert "a larger 'limit'" in result.output


@pytest.mark.usefixtures("booked")
def test_the_usage_and_the_costs_of_openai_are_read(run: Run, tmp_path: Path) -> None:
    start = int(at(DAY).timestamp())
    tokens = {"input_tokens": 3000, "input_cached_tokens": 0, "output_tokens": 300, "num_model_requests": 3}
    usage = {"object": "organization.usage.completions.result", "model": "gpt-4o-mini-2024-07-18", **tokens}
    costs = [
        {"amount": {"value": 0.00045, "currency": "usd"}, "line_item": "gpt-4o-mini-2024-07-18, input"},
        {"amount": {"value": "0.00018", "currency": "usd"}, "line_item": "gpt-4o-mini-2024-07-18, output"},
    ]
    for name, results in (("usage.json", [usage]), ("costs.json", costs)):
        page = {"data": [{"start_time": start, "results": results}, {"start_time": start + 86400, "results": []}]}
        (tmp_path / name).write_text(json.dumps(page), encoding="utf-8")
    both = ("--bill", str(tmp_path / "usage.json"), "--bill", str(tmp_path / "costs.json"))
    expected = [(f"{DAY}", "chat", "gpt-4o-mini", "unbooked", pytest.approx(0.00021))]

    assert found(run("costs", "reconcile", *both, "--json")) == expected
    assert found(run("costs", "reconcile", *both[:2], "--json")) == expected

    csv = tmp_path / "usage.csv"
    csv.write_text(
        "start_time,end_time,project_id,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n"
        f"{start},{start + 3600},p,2,gpt-4o-mini-2024-07-18,2000,200,0\n{start},{start + 3600},p,0,,0,0,0\n",
        encoding="utf-8",
    )
    assert found(run("costs", "reconcile", "--bill", str(csv), "--json")) == []


@pytest.mark.usefixtures("booked")
def test_the_simple_bill_of_the_paid_api_is_read(run: Run, file: File) -> None:
    header = "day,model,requests,prompt_tokens,cached_tokens,output_tokens,usd"
    dearer = file("api.csv", header, f"{DAY},gpt-4o-mini,2,2000,0,200,0.00084", f"{DAY},gpt-9,1,10,0,10,")

    assert [row[1:] for row in found(run("costs", "reconcile", "--bill", str(dearer), "--json"))] == [
        ("chat", "gpt-4o-mini", "price", pytest.approx(0.00042)),
        (None, "gpt-9", "unbooked", 0),
    ]


def test_hosts_that_were_deleted_after_a_check_leave_no_closed_hour(run: Run, file: File, store: Store) -> None:
    long_ago = DAY - 4 * host_bills.REVISE
    times = {"requested_at": at(long_ago), "ordered_at": at(long_ago), "ended_at": at(long_ago, 2)}
    with store.begin() as db:
        rows = [{"id": name, "pool": pool, "usd_per_hour": 4} for name, pool in (("a", "p"), ("b", "p"), ("c", "q"))]
        db.execute(sa.insert(hosts), [{**row, **times, "end_reason": "gone"} for row in rows])
        recent = {"requested_at": at(DAY), "ordered_at": at(DAY), "ended_at": at(DAY, 1), "end_reason": "gone"}
        db.execute(sa.insert(hosts).values(id="d", pool="q", usd_per_hour=4, **recent))

    def close() -> dict[str, Decimal]:
        with store.begin() as db:
            while found := cost_hours.open_bills(db):
                for each in found:
                    cost_hours.close_hour(db, each, CostSettings())
            sums = "SELECT pool, sum(bill_usd) AS usd FROM cost_hours WHERE hour < :at GROUP BY pool"
            return {row.pool: row.usd for row in db.execute(sa.text(sums), {"at": at(DAY)})}

    assert close() == {"p": 16, "q": 8}
    with store.begin() as db:
        db.execute(sa.text("UPDATE host_hours SET billed_at = billed_at - interval '30 days'"))
        db.execute(sa.delete(hosts).where(hosts.c.id.in_(["a", "c"])))

    bill = file("bill.csv", "day,host,type,hours,usd", f"{long_ago},b,,2,8")
    assert run("costs", "reconcile", "--bill", str(bill)).exit_code == 0
    assert close() == {"p": 8}


@pytest.mark.usefixtures("booked")
def test_a_check_waits_for_the_sweep_that_bills_the_same_machines(run: Run, file: File, store: Store) -> None:
    bill = file("bill.csv", "day,host,type,hours,usd", f"{DAY},i-1,,12,48")
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    def waits() -> bool:
        with store.read() as db:
            return db.scalar(sa.text(waiting)) is not None

    with ThreadPoolExecutor(1) as threads:
        with store.begin() as db:
            locks.take(db, "close_hours")
            check = threads.submit(run, "costs", "reconcile", "--bill", str(bill))
            until(waits)
        assert check.result().exit_code == 0


def test_days_that_are_not_over_are_left_out(run: Run, file: File) -> None:
    bill = file("bill.csv", "day,host,type,hours,usd", f"{TODAY},i-1,a,1,1", f"{TODAY + timedelta(days=1)},i-1,a,1,1")
    result = run("costs", "reconcile", "--bill", str(bill))
    assert (result.exit_code, "bill.csv has no day that is over" in str(result.exception) + result.output) == (1, True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b"], "is no bill that is known here. Its first line needs the columns day,host,type,hours,usd"),
        (["day,host,type,hours,usd"], "has no line to compare"),
        (["day,host,type,hours,usd", "2026-11-01,a,t,x,1"], "bill.csv, line 2: 'hours' is not a number: 'x'"),
        (["day,host,type,hours,usd", "1.11.2026,a,t,1,1"], "bill.csv, line 2: 'day' is not a day such as"),
        (["day,host,type,hours,usd", "2026-11-01,,t,1,NaN"], "bill.csv, line 2: 'host' is empty"),
        (["day,host,type,hours,usd", "2026-11-01,a,t,1,NaN"], "'usd' is not a number: 'NaN'"),
        (
            ["day,model,requests,prompt_tokens,cached_tokens,output_tokens,usd", "2026-11-01,m,1.5,1,1,1,1"],
            "'requests' is not a whole number: '1.5'",
        ),
        (["day,host,type,hours,usd", "2026-11-01,a,t,1,1e400"], "'usd' is not below 1,000,000,000,000: '1e400'"),
        (["day,host,type,hours,usd", "2026-11-01,a,t,1,9,50"], "line 2: it has more fields than the first line: put"),
        (["day,host,type,hours,usd,usd", "2026-11-01,a,t,1,9,5"], "bill.csv has the column 'usd' twice: leave one"),
        (["day,host,type,hours,usd", "2026-11-01,a\0b,t,1,9"], "'host' is not a name of at most 500 printable"),
        (["day,host,type,hours,usd", f"2026-11-01,{'a' * 200_000},t,1,9"], "bill.csv cannot be read: field larger"),
        (
            ["day,model,requests,prompt_tokens,cached_tokens,output_tokens,usd", "2026-11-01,m,1e9999999,1,1,1,1"],
            "'requests' is not below",
        ),
        (
            ["start_time,model,num_model_requests,input_tokens,output_tokens", f"{'9' * 5000},m,1,1,1"],
            "line 2: 'start_time' is not a time: '9999",
        ),
    ],
    ids=[
        *("columns", "empty", "number", "date", "host", "nan", "fraction", "large", "comma", "column_twice", "nul"),
        *("long", "long_count", "start_time"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    run: Run, file: File, lines: list[str], message: str
) -> None:
    result = run("costs", "reconcile", "--bill", str(file("bill.csv", *lines)))
    assert (result.exit_code, message in result.output) == (1, True), result.output


AWS_COLUMNS = "line_item_usage_start_date,line_item_resource_id,line_item_usage_amount,line_item_unblended_cost"
PACKED = gzip.compress(b"day,host,type,hours,usd\n" + b"2026-11-01,a,t,1,1\n" * 1000)


def openai_page(start: Any, *results: Any) -> bytes:
    return json.dumps({"data": [{"start_time": start, "results": results}]}).encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("utf16.csv", "day,host,type,hours,usd\n".encode("utf-16"), "is not in UTF-8: save it again as text in UTF-8"),
        ("cut.csv.gz", PACKED[:-20], "cannot be read: Compressed file ended"),
        ("broken.csv.gz", PACKED[:15] + b"\0\xff\xff\x12" + PACKED[19:], "cannot be read: Error -3"),
        ("deep.json", b"[" * 200_000, "cannot be read: maximum recursion depth"),
        ("list.json", openai_page(1, []), "list.json is no answer of OpenAI's"),
        ("late.json", openai_page(10**20, {"amount": {"value": 1}, "line_item": "m"}), "'start_time' is not a time"),
        ("nan.json", openai_page(1, {"amount": {"value": float("nan")}, "line_item": "m"}), "'amount' is not a number"),
        ("item.json", openai_page(1, {"amount": 5, "line_item": 6}), "item.json is no answer of OpenAI's"),
        (
            "nul.json",
            openai_page(1, {"amount": {"value": 1}, "line_item": "m\0"}),
            "'line_item' is not a name of at most",
        ),
        ("aws.csv", f"{AWS_COLUMNS}\n2026-11-01,i,1,1\n".encode(), "is no bill that is known here"),
        (
            "tags.csv",
            f"{AWS_COLUMNS},line_item_usage_type,resource_tags\n2026-11-01,i,1,1,BoxUsage:p4,[1]\n".encode(),
            "line 2: 'resource_tags' is no JSON object: '[1]'",
        ),
        (
            "zone.csv",
            f"{AWS_COLUMNS},line_item_usage_type\n0001-01-01T00:00+14:00,i,1,1,BoxUsage:p4\n".encode(),
            "line 2: 'line_item_usage_start_date' is not a time: '0001",
        ),
    ],
    ids=["utf16", "cut", "broken", "deep", "list", "late", "nan", "item", "nul", "aws", "tags", "zone"],
)
def test_a_malformed_file_ends_in_one_sentence(
    run: Run, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    tag = ("--tag", "team=x") if name == "tags.csv" else ()
    result = run("costs", "reconcile", "--bill", str(tmp_path / name), *tag)
    assert (result.exit_code, message in result.output) == (1, True), result.output


def test_bills_of_both_sources_are_refused_together(run: Run, file: File) -> None:
    one = file("a.csv", "day,host,type,hours,usd", "2026-11-01,a,t,1,1")
    header = "day,model,requests,prompt_tokens,cached_tokens,output_tokens,usd"
    other = file("b.csv", header, "2026-11-01,m,1,1,1,1,1")
    result = run("costs", "reconcile", "--bill", str(one), "--bill", str(other))
    assert (result.exit_code, "reconcile them one after the other" in result.output) == (2, True)
    wrong_tag = run("costs", "reconcile", "--bill", str(one), "--tag", "x")
    assert (wrong_tag.exit_code, "--tag 'x' is not KEY=VALUE" in wrong_tag.output) == (2, True)


def test_a_file_that_is_given_twice_is_refused(run: Run, file: File) -> None:
    bill = file("a.csv", "day,host,type,hours,usd", "2026-11-01,a,t,1,1")
    result = run("costs", "reconcile", "--bill", str(bill), "--bill", str(bill.parent / "." / bill.name))
    assert (result.exit_code, "would count twice" in result.output) == (2, True)
