"""Optional features, a folder each. To lift one out, delete its folder and its line here.

Each is independent of the others but for what its `PLUGIN` needs, which stands above it.
"""

NAMES = (
    "backtest",
    "batches",
    "bills",
    "demo",
)
