"""What all commands have in common."""

from collections.abc import Iterator

import click
import pytest

from headrace.cli import main


def leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name."""
    for name, command in group.commands.items():
        whole = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            yield from leaves(command, whole)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield whole, command


@pytest.mark.parametrize(("name", "command"), list(leaves(main)))
def test_every_command_prints_its_outcome_as_json(name: str, command: click.Command) -> None:
    assert any("--json" in parameter.opts for parameter in command.params), name
