"""`predictive` against models of Knative's and Kubernetes' autoscalers, simulated on made-up loads.

The claim: answering 1,000 requests costs less with the hosts that `predictive` orders. The fleet is simulated as in
`headrace backtest`, and all policies face the same requests. Knows no running system.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from bed.testbed import console, line_of
from peers.autoscalers import HpaPilot, KpaPilot
from plugins.backtest.load import SYNTHETIC, OfferedLoad, Sizes, offered_load, synthetic
from plugins.backtest.pilots import Pilot, ProductPilot, settings_for
from plugins.backtest.pool import World
from plugins.backtest.runs import RunFigures, figures, hosts_at_peak, hosts_at_start, simulate

LOADS = ("day", "week", "spike-30", "ramp")
SEED = 1


def pilots(load: OfferedLoad, world: World) -> dict[str, Pilot]:
    """The product's default policy, and the peers."""
    predictive = ProductPilot(settings_for(world, "predictive", hosts_at_peak(load, world)))
    return {"predictive": predictive, "kpa": KpaPilot(world), "hpa": HpaPilot(world)}


def compare(name: str, world: World) -> dict[str, RunFigures]:
    """Each policy on one load."""
    load = offered_load(synthetic(name, SEED), Sizes(), SEED)
    found = {}
    for policy, pilot in pilots(load, world).items():
        console.print(f"{name}, {policy}, {len(load.times_s):,} requests", style="dim")
        found[policy] = figures(simulate(load, world, pilot, hosts_at_start(load, world)), load, world)
    return found


def show(found: dict[str, dict[str, RunFigures]]) -> None:
    """A line for each load and policy."""
    table = Table("load", "policy", header_style="bold")
    for heading in ("USD/1k", "p95 s", "429", "paid API", "use", "host-h"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, policies in found.items():
        for policy, each in policies.items():
            shares = (f"{share:.2%}" for share in (each.refused_share, each.spilled_share, each.use))
            waits = f"{each.usd_per_1000:.3f}", f"{each.p95_wait_s:.1f}"
            table.add_row(name, policy, *waits, *shares, f"{each.host_hours:,.0f}")
        table.add_section()
    console.print(table)


@click.command()
@click.option("--load", "names", multiple=True, type=click.Choice(list(SYNTHETIC)), help="Repeatable. Default: four.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all rows.")
def main(names: tuple[str, ...], file: Path | None) -> None:
    """Compare the bill of `predictive` with that of Knative's and Kubernetes' autoscalers, on simulated hosts.

    The peers are models of the algorithms with their defaults: Knative's pod autoscaler (KPA) on a stable and a panic
    window, Kubernetes' horizontal one (HPA) on requests in flight, both at 70 % of a host's slots. Host, prices and
    loads are the defaults of `headrace backtest`: 4.10 USD an hour, 20 slots, 300 s from order to ready, and a paid API
    for what would wait longer than 30 s.

    The last line is name=value pairs: vs_kpa and vs_hpa, the USD of 1,000 answered requests under `predictive` over
    those under the peer, the highest ratio of all loads; refused_share of `predictive`; and the p95 of the wait, which
    the peers' idle slots keep lower: p95_wait_s of `predictive`, _kpa and _hpa. All are the highest of all loads. The
    status is 1 when a ratio is 1 or more.

    \b
    bin/headrace python benchmarks/autoscalers.py
    """
    world = World()
    found = {name: compare(name, world) for name in names or LOADS}
    show(found)
    result = {
        f"vs_{peer}": max(each["predictive"].usd_per_1000 / each[peer].usd_per_1000 for each in found.values())
        for peer in ("kpa", "hpa")
    }
    result["refused_share"] = max(each["predictive"].refused_share for each in found.values())
    for suffix, policy in (("", "predictive"), ("_kpa", "kpa"), ("_hpa", "hpa")):
        result[f"p95_wait_s{suffix}"] = max(each[policy].p95_wait_s for each in found.values())
    if file is not None:
        rows = {name: {policy: asdict(each) for policy, each in policies.items()} for name, policies in found.items()}
        file.write_text(json.dumps({"figures": result, "loads": rows}, indent=2) + "\n")
    print(line_of(result))
    sys.exit(0 if max(result["vs_kpa"], result["vs_hpa"]) < 1 else 1)


if __name__ == "__main__":
    main()
