"""Deletes the texts of old batches: each of their lines has its request, and none outlives its days.

The claim: ten batches of 50,000 lines that come of age at once are gone within minutes. Knows the system from outside:
the control process, and SQL to make the past and to count.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bed.batches.waiting import put_batches
from bed.testbed import BARE, Testbed, console, line_of, patched, wait_until

OFF_FOLDER = Path(__file__).parent / "bed" / "batches" / "off"
APP = "app-1"
#: Days since the batches were made: more than `files.keep_days` and `keep_texts_days`.
DAYS = 31
#: How long the last line is waited for, and how long a sweep without the bound is watched, in seconds.
LONGEST_S, WATCHED_S = 900.0, 120.0
#: Four pages of text in each line, in which Postgres finds nothing to compress.
TEXT_BYTES = 12_000
WITHOUT = tuple(name for name in BARE if name != "control")


def measure(batches: int, lines: int, env: Mapping[str, str], watched_s: float) -> dict[str, Any]:
    """End old batches at once, and count the lines that are left once they are gone, or after this time."""
    with Testbed(env, WITHOUT) as bed:
        bed.make_key(APP)
        put_batches(bed, APP, batches, lines, DAYS, TEXT_BYTES)
        bed.sql("UPDATE batches SET state = 'completed', completed = total, completed_at = now()")
        began = time.monotonic()
        wait_until(lambda: not bed.sql("SELECT 1 FROM batch_lines LIMIT 1"), watched_s, None)
        minutes = (time.monotonic() - began) / 60
        [(left,)] = bed.sql("SELECT count(*) FROM batch_lines")
        [(hidden,)] = bed.sql("SELECT count(*) FROM batches WHERE NOT has_lines")
    return {"texts": batches * lines, "texts_left": left, "minutes": minutes, "batches_hidden": hidden}


@click.command()
@click.option("--batches", type=click.IntRange(min=1), default=10, show_default=True, help="That are old.")
@click.option("--lines", type=click.IntRange(min=1), default=50_000, show_default=True, help="Of each batch.")
@click.option("--off", type=click.Choice(["bound"]), help="Once more with one statement for the lines of all batches.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(batches: int, lines: int, off: str | None, file: Path | None) -> None:
    """Let batches come of age at once, and see the texts of their lines deleted.

    Starts Postgres, Valkey and the control process, and writes batches of 31 days ago by COPY, with four pages of text
    in each line. Then all of them end in one statement, and the sweep `forget_lines` finds them.

    The last line is name=value pairs: texts, the lines of all batches; texts_left, those that are left in the end;
    minutes, until the last one was gone; batches_hidden, those whose lines no call reads any more; with --off bound,
    texts_left of a sweep that deletes all of them in one statement, after two minutes. The status is 1 when a text is
    left, or none is with --off.

    \b
    bin/headrace python benchmarks/forget.py --off bound
    """
    console.print(f"{batches} old batches of {lines:,} lines", style="dim")
    figures = measure(batches, lines, {}, LONGEST_S)
    is_met = not figures["texts_left"]
    if off:
        console.print("once more, in one statement", style="dim")
        without = measure(batches, lines, patched(OFF_FOLDER) | {"BATCH_OFF": "forget"}, WATCHED_S)
        figures["texts_left_off"] = without["texts_left"]
        is_met = is_met and without["texts_left"] > 0
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    main()
