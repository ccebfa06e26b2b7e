"""Refuse, before it runs, a pipeline of which DaskRunner would lose a part and say that it was done.

Beam 2.77's DaskRunner computes the graph of the last transform alone, drops what finish_bundle sends, gives
every element to every tagged output, and knows neither windows, nor sources, nor state. Each was measured.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.iobase import Read
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.common import DoFnSignature

from sid_schemas import WarehouseError


def check(pipeline: beam.Pipeline) -> None:
    """Raise WarehouseError that names every transform DaskRunner would get wrong, and why."""
    problems = list(problems_of(pipeline))
    if problems:
        raise WarehouseError(f"DaskRunner would lose data of this pipeline: {'; '.join(problems)}")


def problems_of(pipeline: beam.Pipeline) -> Iterator[str]:
    """Give what DaskRunner would get wrong, transform by transform."""
    visitor = _Visitor()
    pipeline.visit(visitor)
    leaves = [one for one in visitor.transforms if not set(one.outputs.values()) & visitor.read]
    if len(leaves) > 1:
        ends = ", ".join(one.full_label for one in leaves)
        yield f"several ends ({ends}), of which only the last would run"
    for one in visitor.transforms:
        yield from (f"{one.full_label}: {why}" for why in _problems(one))


class _Visitor(PipelineVisitor):
    """Collects the transforms that do something, and the collections that something reads."""

    def __init__(self) -> None:
        self.transforms: list[AppliedPTransform] = []
        self.read: set[Any] = set()

    def enter_composite_transform(self, applied: AppliedPTransform) -> None:
        if isinstance(applied.transform, Read):  # on Dask it is one, whatever is inside
            self.transforms.append(applied)

    def visit_transform(self, applied: AppliedPTransform) -> None:
        self.transforms.append(applied)
        self.read |= {*applied.inputs, *(one.pvalue for one in applied.side_inputs)}


def _windowing(collection: Any) -> Any:
    return collection.windowing


def _problems(applied: AppliedPTransform) -> Iterator[str]:
    transform = applied.transform
    if len(applied.outputs) > 1 or any(tag is not None for tag in applied.outputs):
        yield "tagged outputs get every element each"
    if any(not _windowing(one).is_default() for one in applied.outputs.values()):
        yield "windows are ignored"
    if isinstance(transform, Read):
        yield "sources are not read"
    if isinstance(transform, beam.ParDo):
        signature = DoFnSignature(transform.fn)
        if signature.is_stateful_dofn():
            yield "state and timers are not kept"
        if signature.is_splittable_dofn():
            yield "splittable functions are not split"
        if type(transform.fn).finish_bundle is not beam.DoFn.finish_bundle:
            yield "what finish_bundle sends is dropped"
