"""Trainers' formats: a release as the files that somebody else's trainer reads, unchanged.

A new format is one file with a `FORMAT` and one line here. What each trainer demands, and whose own reader
ran on our files, is in docs/trainers.md.
"""

from collections.abc import Mapping

from sid_pipelines.trainers import lc_rec
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.folder import Folder

__all__ = ["TRAINERS", "Feed", "Folder", "Format", "Settings"]

TRAINERS: Mapping[str, Format] = {
    one.name: one
    for one in (
        lc_rec.FORMAT,
    )
}  # fmt: skip
