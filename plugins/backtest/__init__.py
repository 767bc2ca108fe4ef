"""`headrace backtest`: runs the product's own scaling policies, and others, on a load and a model of hosts."""

from headrace.hooks import Plugin, PluginCommand

PLUGIN = Plugin(
    name="backtest",
    commands={
        "backtest": PluginCommand(
            "plugins.backtest.commands:backtest",
            "Compare scaling policies on a load: waits, refusals, use of the hosts, and the bill.",
        )
    },
)
