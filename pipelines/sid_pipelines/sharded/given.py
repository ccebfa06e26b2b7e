"""What the tasks of a stage know of its work: its parameters, and where its inputs lie.

Unlike `Work` it travels to workers. There it becomes a Work again that writes into a task's own folder, so
that the local stage's functions run in a task as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sid_pipelines.sharded.job import Task
from sid_pipelines.stage import Resources, Work
from sid_warehouse.stages import StageDraft, StageOutput, StageStore


@dataclass(frozen=True)
class Given:
    """A stage's parameters, and its parents' outputs by role. cache: the warehouse's, which workers share."""

    params: Any
    inputs: Mapping[str, StageOutput]
    cache: Path

    @classmethod
    def of(cls, work: Work) -> "Given":
        """Take them from the driver's work; paths become absolute, as workers start elsewhere."""
        inputs = {role: replace(one, folder=one.folder.absolute()) for role, one in work.inputs.items()}
        return cls(work.params, inputs, work.resources.cache.absolute())

    def work(self, task: Task) -> Work:
        """Give the stage's work to a task. Its draft is the task's folder, which nothing commits."""
        draft = StageDraft(StageStore(task.out, ""), "", task.key, {}, task.out, {}, 0.0)
        resources = Resources(memory=task.resources.memory, cache=self.cache)
        return Work(self.params, self.inputs, draft, resources, lambda done, total: None)
