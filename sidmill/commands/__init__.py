"""The commands, a file for each group of them; importing the package registers all with the app."""

from sidmill.commands import build, fetch, inspect, menus

__all__ = ["build", "fetch", "inspect", "menus"]
