"""When an app is confined: its prompts have killed engines of a pool, and it keeps sending new ones. Pure."""

from dataclasses import dataclass

#: So many poison prompts of one app in one pool, within so many seconds, confine it there. One may be an accident.
STRIKES, WITHIN_S = 2, 3600.0
#: The pause before the app's next job in the pool, in seconds, after its first strike beyond `STRIKES`. It doubles with
#: each further one, so that an hour has room for about eight strikes.
FIRST_PAUSE_S = 60.0
#: A confined app is refused further jobs of the pool while so many wait. They end slowly, and the rest would expire.
MOST_HELD = 100
#: The `route_reason` of a job that waited because its app is confined begins with this.
CONFINED = "confined: "


@dataclass(frozen=True, slots=True)
class Confine:
    """Run the app's jobs of the pool one at a time for `for_s` seconds, the next one after `pause_s`."""

    for_s: float
    pause_s: float
    reason: str


def decide(strikes: int, confine_s: float) -> Confine | None:
    """Whether to confine the app.

    Args:
        strikes: its poison prompts in this pool within `WITHIN_S`, the one that has just killed an engine included.
        confine_s: how long to confine it; 0: never.
    """
    if strikes < STRIKES or confine_s <= 0:
        return None
    further = strikes - STRIKES
    pause_s = min(confine_s, FIRST_PAUSE_S * 2.0 ** min(further - 1, 20)) if further else 0.0
    return Confine(confine_s, pause_s, f"{strikes} of its prompts killed engines within an hour")
