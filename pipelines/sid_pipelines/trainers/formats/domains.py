"""A folder for each domain: its targets, with histories over all. GMC's per-domain shards, by its paper.

One codebook serves all domains; a trainer tunes an adapter for each from its own files, and a common model
from all together. A format of ours; the paper's code is not public.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import SPLITS, Feed
from sid_pipelines.trainers.reading.lists import Categories
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import DIALECTS

READER = "GMC"
MOST = 1000  # a pass over the samples for each
README = """
A format of ours after GMC's paper, whose code is not public (secondary). Every domain has a folder,
`domains.json` says which: {domains}. A line of `<folder>/<split>.jsonl` is a sample whose target is of that
domain: `user`, `target` and `target_sid`, `domain`; `history`, `history_sids` and `history_domains` go over
all domains, oldest first, at most {history} items.

Adapters are tuned on one folder, the common model on all of them. SIDs are of one codebook for all domains.
`by = category` takes an item's broadest category for its domain, for data sets that have one domain only.
"""


class DomainsSettings(Settings):
    """by: what a domain is: the column `domain` of items, or their broadest category.

    max_history: newest items of a history that are kept.
    """

    by: Literal["domain", "category"] = "domain"
    max_history: int = Field(default=20, ge=1)


def write(feed: Feed, out: Folder, settings: DomainsSettings) -> str:
    """Write a file for each domain and split."""
    feed.require_one_target(READER)
    of = _domains(feed, settings.by)
    names = sorted(set(of))
    if not 2 <= len(names) <= MOST:
        raise feed.refuse(
            READER,
            f"items of 2 to {MOST:,} domains",
            f"{len(names):,}",
            "Build it of several catalogues, or set by=category, which takes the broadest category",
        )
    folders = {name: f"{number:03}-{_slug(name)}" for number, name in enumerate(names)}
    for name, folder in folders.items():
        for split in SPLITS:
            says = f"{split} samples of {name or 'items without a category'}"
            out.json_lines(f"{folder}/{split}.jsonl", says, _rows(feed, split, name, of, settings))
    out.json("domains.json", "the folder of each domain", folders)
    return README.format(
        domains=", ".join(f"`{folder}`" for folder in folders.values()), history=settings.max_history
    )


def _domains(feed: Feed, by: str) -> list[str]:
    if by == "category":
        found = Categories.at(feed, 1)
        return [found.names[number] for number in found.of.tolist()]
    return feed.item_texts("domain")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "none"


def _rows(
    feed: Feed, split: str, domain: str, of: list[str], settings: DomainsSettings
) -> Iterator[dict[str, Any]]:
    angle, vocabulary = DIALECTS["angle"], feed.vocabulary
    sids = feed.sids

    def sid(item: int) -> str:
        return "".join(angle.tokens(sids[item][sids[item] >= 0].tolist(), vocabulary))

    for batch in feed.samples(split, max_history=settings.max_history):
        for user, target, history in batch:
            if of[target] == domain:
                items = history.tolist()
                yield {
                    "user": user,
                    "domain": domain,
                    "history": items,
                    "history_sids": [sid(item) for item in items],
                    "history_domains": [of[item] for item in items],
                    "target": target,
                    "target_sid": sid(target),
                }


FORMAT = Format(
    "domains",
    "GMC (a format of ours, after the paper; its code is not public)",
    "samples by the domain of their target, histories over all domains",
    write,
    DomainsSettings,
    papers=(44,),
)
