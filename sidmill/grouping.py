"""The list of commands: in panels, in the order of use, with a line for each; and names that people guess.

Typer would list them in one row, as they were registered, each cut off where the line ends.
"""

from typing import Any

from typer.core import TyperGroup

from sid_schemas import SidmillError

PANELS = {
    "Build": ("fetch", "plan", "run", "append", "retokenize"),
    "Look": ("releases", "show", "report", "diff", "evaluate", "sql", "verify", "doctor"),
    "Keep": ("tag", "tags", "rollback", "gc", "catalog"),
    "Use": ("export", "suites"),
    "What a recipe may name": (
        "sources", "protocols", "embeddings", "tokenizers", "policies", "pieces", "formats",
    ),
}  # fmt: skip
OTHERS = "Others"
# Not shown in help.
GUESSED = {
    "build": "run",
    "check": "verify",
    "compare": "diff",
    "download": "fetch",
    "info": "show",
    "list": "releases",
    "ls": "releases",
    "query": "sql",
}


class StoppedError(SidmillError):
    """Ctrl-C."""

    exit_code = 130


class Commands(TyperGroup):
    """The group of all commands. Contexts are Typer's, which keeps their types to itself."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Give the names in the order of the panels."""
        return [name for _, names in self.panels() for name in names]

    def panels(self) -> list[tuple[str, list[str]]]:
        """Give each panel with those of its commands that there are; what is in none comes last."""
        placed = {name for names in PANELS.values() for name in names}
        left = [name for name in self.commands if name not in placed]
        panels = [
            (title, [name for name in names if name in self.commands]) for title, names in PANELS.items()
        ]
        return [*panels, *([(OTHERS, left)] if left else [])]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a list for each panel; a line that is too long goes on in the next one."""
        widest = max(map(len, self.commands), default=0)
        for title, names in self.panels():
            rows = [(name.ljust(widest), self.commands[name].get_short_help_str(1000)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Give a command by its name, or by one that was guessed."""
        return super().get_command(ctx, GUESSED.get(cmd_name, cmd_name))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C becomes one line, where the command itself has none."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            said = "stopped; nothing is left half written. Run the same command again"
            raise StoppedError(said) from None
