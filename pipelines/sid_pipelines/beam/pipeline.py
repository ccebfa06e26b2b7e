"""A job as a Beam pipeline: one GroupByKey and one ParDo for every step, in a row, and no more.

    Create refs | GroupByKey | tasks of step 1 | GroupByKey | tasks of step 2 | ...

What travels is (word, ref), a few hundred bytes of text and numbers; the last step sends nothing. There is
one end. It uses only what every runner does right; guard.py says what some do wrong.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineRunner

from sid_pipelines.beam.one_core import Process, on_one_core
from sid_pipelines.beam.spread import ByKey, OnDask
from sid_pipelines.sharded.committed import run_task
from sid_pipelines.sharded.job import Job, Ref, Step
from sid_pipelines.stage import Resources

Sent = tuple[str, str, str, int, int, str]  # the fields of a Ref: Beam has coders for them, and pickles none
Keyed = tuple[str, Sent]
NOTHING = astuple(Ref("", ""))


class RunTasks(beam.DoFn):
    """Runs the tasks of a step, each committed once; sends what they emit by the words of the next step."""

    def __init__(
        self, scratch: Path, job: str, step: Step, resources: Resources, spread: ByKey | OnDask, *, last: bool
    ) -> None:
        """Take what `run_task` needs. last: whether no step follows."""
        self.scratch, self.job, self.step, self.resources = scratch, job, step, resources
        self.spread, self.last, self.driver = spread, last, Process.this()

    def setup(self) -> None:
        """Keep to one core, as the runner starts a worker for each; once per process."""
        on_one_core(self.driver)

    def process(self, element: tuple[str, Iterable[Sent]]) -> Iterator[Keyed]:
        """Run the tasks of one word: one, or all of a place."""
        tasks: dict[str, list[Ref]] = defaultdict(list)
        for sent in element[1]:
            if sent != NOTHING:
                tasks[sent[0]].append(Ref(*sent))
        for key, refs in sorted(tasks.items()):
            emitted = run_task(self.scratch, self.job, self.step, key, refs, self.resources)
            for ref in () if self.last else emitted:
                yield self.spread.word(ref.key), astuple(ref)


def pipeline_of(
    job: Job,
    scratch: Path,
    resources: Resources,
    *,
    options: PipelineOptions,
    spread: ByKey | OnDask,
    runner: PipelineRunner | None = None,
) -> beam.Pipeline:
    """Build the pipeline of a job, which runs when it is told to.

    runner: where it is not for Beam to make it by the options.
    """
    pipeline = beam.Pipeline(runner, options=options)
    sent = [(spread.word(ref.key), astuple(ref)) for ref in job.refs]
    sent += [(word, NOTHING) for word in spread.fillers(len(sent))]
    refs = pipeline | f"{job.name}: refs" >> beam.Create(sent, reshuffle=False).with_output_types(Keyed)
    for step in job.steps:
        tasks = RunTasks(scratch, job.name, step, resources, spread, last=step is job.steps[-1])
        refs = (
            refs
            | f"{job.name}: gather for {step.name}" >> beam.GroupByKey()
            | f"{job.name}: {step.name}" >> beam.ParDo(tasks).with_output_types(Keyed)
        )
    if isinstance(spread, ByKey):
        # FnApiRunner sees that a worker died by what no longer comes from it, and else waits for ever; so the
        # last step has somewhere to send nothing to. Dask sees it anyhow, and would take a round more.
        ends = refs | f"{job.name}: gather the end" >> beam.GroupByKey()
        _ = ends | f"{job.name}: end" >> beam.FlatMap(nothing)
    return pipeline


def nothing(element: tuple[str, Iterable[Sent]]) -> list[Keyed]:
    """Send nothing on."""
    return []
