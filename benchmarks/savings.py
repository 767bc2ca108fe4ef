"""How many users one simulated fleet of GPUs carries with all that saves work on, against the same fleet without.

The claim: repeats, paraphrases, easy questions and repeated words cost the fleet so little that it carries five times
the users. A real Headrace, with real servers; the GPUs are simulated, and know the right answers.
"""

import json
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bed.savings.fleet import FAST, MECHANISMS, Fleet, capacity_per_s, fleet
from bed.savings.measured import Trial, trial_of
from bed.savings.questions import Mix, Questions
from bed.savings.users import EVERY_S, Users
from bed.testbed import console, line_of

GOAL = 5.0
#: A load is sustained while 95 % of the jobs that an engine answers start within these seconds, in each pool, and no
#: larger share of the requests is refused or without an answer.
WAIT_S, REFUSED_SHARE = 2.0, 0.01
#: Two rates that differ by less count as one; and by how much the search goes on until it has one on either side.
FINE, COARSE = 1.08, 1.3
#: The first rate that is tried, as a multiple of what the large model can answer: without and with the mechanisms.
FIRST_OFF, FIRST_ON = 0.9, 3.0
#: The mean prompt, in tokens: only the first rate that is tried depends on it.
PROMPT_TOKENS = 250
#: The rate at which the past is worked off, by a fleet that is 100 times as fast.
PAST_PER_S = 80.0
MOST_TRIALS = 12
SHARE, COUNT = click.FloatRange(0, 1), click.IntRange(min=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be. Attributes: past: questions that were asked before, in each arm."""

    mix: Mix
    seconds: float
    past: int
    seed: int


class Arm:
    """One fleet, whose users go on asking from one load to the next."""

    def __init__(self, made: Fleet, plan: Plan) -> None:
        self._fleet, self._plan = made, plan
        self._questions, self._users = Questions(plan.mix, plan.seed), Users(made, plan.seed)

    def work_off_past(self) -> None:
        """Let the users ask for a while beforehand, of a fleet that is much faster."""
        with self._fleet.working(FAST):
            self._users.ask(self._questions.take(self._plan.past), PAST_PER_S)
            self._fleet.wait_until_all_ended()

    def offer(self, per_s: float) -> Trial:
        """One load; returns once all that was asked has ended."""
        questions = self._questions.take(max(1, round(per_s * self._plan.seconds)))
        submitted = self._users.ask(questions, per_s)
        self._fleet.wait_until_all_ended()
        trial = trial_of(self._fleet.bed, submitted, per_s)
        lost = f"{trial.refused} of {trial.asked} refused"
        told = f"p95 wait {trial.wait_s:.2f} s, {lost}, client late by {trial.late_s:.2f} s"
        console.print(f"{per_s * EVERY_S:.0f} users: {told}", style="dim")
        return trial


def is_sustained(trial: Trial) -> bool:
    """Whether the load is within the bounds."""
    return trial.wait_s <= WAIT_S and trial.refused <= REFUSED_SHARE * trial.asked


def search(offer: Callable[[float], Trial], first_per_s: float) -> tuple[Trial, list[Trial]]:
    """The highest load that is sustained, within `FINE`, and all that were tried.

    Raises: ClickException: none is.
    """
    trials, good, bad, per_s = list[Trial](), None, None, first_per_s
    while len(trials) < MOST_TRIALS and not (good and bad and bad.per_s / good.per_s <= FINE):
        trial = offer(per_s)
        trials.append(trial)
        if is_sustained(trial):
            good = trial
        else:
            bad = trial
        per_s = (
            (good.per_s * bad.per_s) ** 0.5 if good and bad else good.per_s * COARSE if good else trial.per_s / COARSE
        )
    if good is None:
        raise click.ClickException(f"No load is sustained: {per_s * EVERY_S:.0f} users are too many.")
    return good, trials


def measure(plan: Plan, on: Collection[str], first: float) -> tuple[Trial, list[Trial]]:
    """The load that a fleet with these mechanisms sustains."""
    console.rule(f"with {', '.join(on)}" if on else "without any")
    with fleet(on) as made:
        arm = Arm(made, plan)
        if on:
            console.print(f"{plan.past} questions of the past", style="dim")
            arm.work_off_past()
        with made.working():
            return search(arm.offer, first * capacity_per_s(PROMPT_TOKENS))


def show(found: dict[str, tuple[Trial, list[Trial]]]) -> None:
    """By arm, its users, and what gave the answers at that load."""
    table = Table("at the highest sustained load", header_style="bold")
    for name in found:
        table.add_column(name, justify="right")
    ways = sorted({way for trial, _ in found.values() for way in trial.ways})
    rows: list[tuple[str, Callable[[Trial], str]]] = [
        ("users", lambda trial: f"{trial.per_s * EVERY_S:.0f}"),
        ("p95 wait, s", lambda trial: f"{trial.wait_s:.2f}"),
        *((f"answers: {way}", lambda trial, way=way: f"{trial.share(way):.1%}") for way in ways),  # type: ignore[misc]
        *((f"wrong: {way}", lambda trial, way=way: str(trial.wrong.get(way, 0))) for way in ways),  # type: ignore[misc]
        ("prompt tokens a request", lambda trial: f"{trial.prompt_tokens / trial.asked:.0f}"),
        ("answer tokens a request", lambda trial: f"{trial.output_tokens / trial.asked:.0f}"),
        ("USD a million requests", lambda trial: f"{1e6 * trial.usd_each:.2f}"),
    ]
    for title, cell in rows:
        table.add_row(title, *(cell(trial) for trial, _ in found.values()))
    console.print(table)


def summary(found: dict[str, tuple[Trial, list[Trial]]]) -> dict[str, Any]:
    """What the last line says."""
    (on, trials), (off, _) = found["on"], found["off"]
    answers = sum(trial.answered for trial in trials)
    figures: dict[str, Any] = {
        "users_ratio": on.per_s / off.per_s,
        "gpu_tokens_ratio": on.tokens_each / off.tokens_each,
        "usd_ratio": on.usd_each / off.usd_each,
        "served_wrong": sum(sum(trial.wrong.values()) for trial in trials) / answers,
        "users": round(on.per_s * EVERY_S),
        "users_off": round(off.per_s * EVERY_S),
    }
    for way in ("hit", "shared", "semantic", "fast", "chat"):
        figures[f"{way}_share"] = on.share(way)
    for name, (trial, _) in found.items():
        if name.startswith("without "):
            figures[f"users_ratio_{name.replace(' ', '_')}"] = trial.per_s / off.per_s
    return figures


@click.command()
@click.option("--repeats", type=SHARE, default=0.3, show_default=True, help="Share: an earlier text again.")
@click.option("--paraphrases", type=SHARE, default=0.3, show_default=True, help="Share: an earlier question, reworded.")
@click.option("--simple", type=SHARE, default=0.5, show_default=True, help="Share of the new questions.")
@click.option("--popular", type=COUNT, default=50, show_default=True, help="Questions that are asked again.")
@click.option("--seconds", type=click.FloatRange(min=2), default=20, show_default=True, help="Of each load.")
@click.option("--past", type=click.IntRange(min=0), default=6000, show_default=True, help="Questions asked before.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the questions and their times.")
@click.option("--off", multiple=True, type=click.Choice(MECHANISMS), help="Once more without it. Repeatable.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write loads.")
def main(
    repeats: float,
    paraphrases: float,
    simple: float,
    popular: int,
    seconds: float,
    past: int,
    seed: int,
    off: tuple[str, ...],
    file: Path | None,
) -> None:
    """Search the highest load that a fleet sustains, with all that saves work on and without any of it.

    Starts a whole Headrace on real servers, with eight simulated GPUs that serve a large model. With routing, seven do,
    and one serves a small model, four times as fast and with three times the slots. Each answer has 160 tokens. A GPU's
    slots are scaled down by about five, so that two cores carry the users. A user asks once a minute. With the semantic
    cache, workers leave a new job alone until it is looked up, for 0.3 s at most.

    A fifth of the default mix is new and hard, and needs the large model. So seven of eight GPUs carry at most
    7/8 x 5 = 4.4 times the users. docs/caching.md says what remains below that.

    The questions are made from templates with a seed. 30 % repeat an earlier text. 30 % ask an earlier question in
    words that were not used before. 40 % are new, and half of these are simple, which the app says in metadata.task.
    The first 50 questions are the ones that come again, by Zipf's law. A fifth of each prompt repeats the app's own
    rules. Each fleet with a mechanism has answered 6,000 questions before, at a hundred times the speed. The
    simulator's answer says what was asked, so an answer to another question is known to be wrong. So is a hard question
    that the small model answered. The semantic cache's embeddings are simulated too, as bags of MiniLM's tokens.

    A load is sustained if the p95 wait for a start is at most 2 s in each pool, of the jobs that an engine answered,
    and at most 1 % of the requests are refused or get no answer. The search ends where 8 % more are too many.

    The last line is name=value pairs: users_ratio, the users with everything on over those without; gpu_tokens_ratio
    and usd_ratio, what engines read and wrote for a request, and what it cost, with over without; served_wrong, the
    share of wrong answers among all; the users of both; and the share of the answers that were hits of the exact cache,
    shared in flight, hits of the semantic cache, and made by the small and the large model. With --off, users_ratio of
    the fleet without that mechanism, too. The status is 1 when users_ratio is below 5.

    \b
    bin/headrace python benchmarks/savings.py
    bin/headrace python benchmarks/savings.py --off cache --off routing --json figures.json
    """
    plan = Plan(Mix(repeats, paraphrases, simple, popular), seconds, past, seed)
    found = {"off": measure(plan, (), FIRST_OFF), "on": measure(plan, MECHANISMS, FIRST_ON)}
    for name in off:
        left = tuple(each for each in MECHANISMS if each != name)
        found[f"without {name}"] = measure(plan, left, FIRST_ON)
    show(found)
    figures = summary(found)
    if file is not None:
        loads = {name: [asdict(trial) for trial in trials] for name, (_, trials) in found.items()}
        file.write_text(json.dumps({"plan": asdict(plan), "figures": figures, "loads": loads}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if figures["users_ratio"] >= GOAL else 1)


if __name__ == "__main__":
    main()
