"""Moments of samples, joined into fewer and longer ones."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from headrace.domain.scaling import Moment


def joined(moments: Iterable[Moment], step_s: float) -> tuple[Moment, ...]:
    """Join moments into one for each step, counted back from the newest; steps without any are absent.

    Each counts all that was offered in its step, and shows the pool as it stood at the newest moment's end.

    Args: moments: in any order.
    """
    newest_first = sorted(moments, key=lambda moment: moment.at, reverse=True)
    steps: dict[int, list[Moment]] = {}
    for moment in newest_first:
        age_s = (newest_first[0].at - moment.at).total_seconds()
        steps.setdefault(int(age_s / step_s), []).append(moment)
    return tuple(_together(steps[step]) for step in sorted(steps, reverse=True))


def _together(newest_first: Sequence[Moment]) -> Moment:
    return replace(
        newest_first[0],
        seconds=sum(moment.seconds for moment in newest_first),
        offered_jobs=sum(moment.offered_jobs for moment in newest_first),
        offered_tokens=sum(moment.offered_tokens for moment in newest_first),
        refused_jobs=sum(moment.refused_jobs for moment in newest_first),
        spilled_jobs=sum(moment.spilled_jobs for moment in newest_first),
    )
