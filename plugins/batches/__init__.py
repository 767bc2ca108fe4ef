"""Files of lines, each a request, which run as one batch; OpenAI's Files and Batches API."""

from typing import Any

from headrace.hooks import Plugin, PluginCommand


def _variables(settings: Any) -> dict[str, str]:
    """Without a storage of the operator's own, files are in the state's folder."""
    store = settings.batches.files.store or str(settings.state_dir / "files")
    return {"HEADRACE_BATCHES__FILES__STORE": store}


PLUGIN = Plugin(
    name="batches",
    settings="plugins.batches.settings:BatchSettings",
    variables=_variables,
    commands={
        "batch": PluginCommand(
            "plugins.batches.commands.batch:batch",
            "Run the lines of a file as one batch, which goes on without this command.",
        )
    },
    actions=("batch.cancel",),
    views=("batch_costs",),
)
