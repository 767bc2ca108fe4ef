"""`headrace demo`: the whole system on this machine, with real prompts, for a newcomer's first minutes."""

from headrace.hooks import Plugin, PluginCommand

PLUGIN = Plugin(
    name="demo",
    commands={
        "demo": PluginCommand(
            "plugins.demo.commands:demo",
            "Start the whole system here, submit real prompts in every lane, and show the answers and their cost.",
        )
    },
)
