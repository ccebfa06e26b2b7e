"""The commands, a file for each group of them; importing the package registers all with the app."""

from sidmill.commands import append, build, compare, export, fetch, inspect, keep, menus, verify

__all__ = ["append", "build", "compare", "export", "fetch", "inspect", "keep", "menus", "verify"]
