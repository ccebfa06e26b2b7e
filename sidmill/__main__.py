"""`python -m sidmill` is the `sidmill` command."""

from sidmill.cli import main

main()
