"""Commands whose files are imported when they are asked for, and listed by what is said of them.

A command's options come of all fields of the spec, so that its file takes half a second to import.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from typer import Typer
from typer.core import TyperCommand
from typer.main import get_command, get_command_from_info
from typer.models import CommandInfo


@dataclass(frozen=True)
class LazyCommand:
    """Where a command's function of the same name is, and the first paragraph of its help."""

    module: str
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # of `typer.Typer.command`

    def load(self, name: str, markup: Any) -> Any:
        """The command itself, or the group of commands."""
        function = getattr(import_module(self.module), name)
        if isinstance(function, Typer):
            group = get_command(function)
            group.name = name
            return group
        info = CommandInfo(name=name, callback=function, **self.settings)
        return get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode=markup)

    def listed(self, name: str, markup: Any) -> Any:
        """A command of this name and help that does nothing, and imports nothing."""
        return TyperCommand(name, help=self.about, rich_markup_mode=markup)


class CommandTable(UserDict[str, Any]):
    """Commands by name, in the order of the help; each is loaded when it is first taken."""

    def __init__(self, commands: Mapping[str, Any], markup: Any) -> None:
        super().__init__(commands)
        self._markup = markup

    def __getitem__(self, name: str) -> Any:
        command = self.data[name]
        if isinstance(command, LazyCommand):
            command = self.data[name] = command.load(name, self._markup)
        return command

    def listed(self) -> dict[str, Any]:
        """The same to be named in a list."""
        return {
            name: command.listed(name, self._markup)
            if isinstance(command, LazyCommand)
            else command
            for name, command in self.data.items()
        }
