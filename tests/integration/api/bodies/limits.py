"""The settings of the `web` process that these tests start, and how long they wait for it."""

DEADLINE_S = 60.0
#: Long enough that the test sees the server full before it ends.
GRACE_S = 3.0
LIMIT = 8 * 1024 * 1024
