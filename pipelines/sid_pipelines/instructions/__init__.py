"""Instruction data: a release as questions and answers for language models, each traceable to its row.

tasks.py names what is asked, templates.py how, examples.py fills it in, audit.py looks for what gives the
answer away, prepared.py is what exports use.
"""

from sid_pipelines.instructions.examples import Example, Examples
from sid_pipelines.instructions.prepared import Instructions
from sid_pipelines.instructions.tasks import TASKS, Task
from sid_pipelines.instructions.templates import NAMES, Style, Template, load, style_named

__all__ = [
    "NAMES",
    "TASKS",
    "Example",
    "Examples",
    "Instructions",
    "Style",
    "Task",
    "Template",
    "load",
    "style_named",
]
