"""The pages of the documentation that are made from the code: no fact of it is written down twice.

meanings.py reads what a class says of its keys; a file for each kind of page gives Markdown; pages.py lists
them all, and hook.py hands them to mkdocs. None of it is in the wheel.
"""
