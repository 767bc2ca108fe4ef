"""Compares the bills of providers with the ledger, and says why they differ."""

from headrace.hooks import Plugin, PluginCommand

PLUGIN = Plugin(
    name="bills",
    commands={
        "costs reconcile": PluginCommand(
            "plugins.bills.commands:reconcile",
            "Compare a provider's bill with the ledger by day, pool, machine or model, and say why they differ.",
        )
    },
    actions=("costs.reconcile",),
    views=("bill_differences",),
)
