"""DiscRec: LETTER's files under the names that its code has fixed, and SIDs as the array of its embedding.

Unlike LETTER it reads no index: it trains an RQ-VAE of its own, of four levels, and takes the codes from that
(`run_discrec.py` 594). So `indices.npy` has the release's SIDs as that line would have them.
"""

from typing import Literal

import numpy as np

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.formats import lc_rec, letter
from sid_pipelines.trainers.writing.folder import Folder

READER = "DiscRec"
LEVELS, CODES = 4, 256  # run_discrec.py: vocab_size = 256 * 4 + 2, each level shifted by 256
WIDTH, BEHAVIOUR = 4096, 32  # the first and the last of --in_dims


class DiscRecSettings(Settings):
    """name: one of the four data sets that the trainer takes; it is in file names and in nothing else.

    embedding: whose vectors go along. cf: the embedding of behaviour, for `--id_type letter`; empty for none.
    """

    name: Literal["Beauty", "Arts", "Instruments", "Toys"] = "Beauty"
    embedding: str = "text"
    cf: str = ""


def write(feed: Feed, out: Folder, settings: DiscRecSettings) -> str:
    """Write the files of one data set."""
    feed.require_leave_one_out(READER)
    feed.require_levels(READER)
    feed.require_length(READER, LEVELS, LEVELS)
    _require_codes(feed)
    _require_last_item(feed)
    for embedding in filter(None, (settings.embedding, settings.cf)):
        feed.require_embedding(embedding)
    name = settings.name
    lc_rec.write_inter(feed, out, name)
    lc_rec.write_vectors(feed, out, f"{name}.emb-llama-td.npy", settings.embedding)
    if settings.cf:
        letter.write_behaviour(feed, out, f"{name}-cf_emb.pt", settings.cf)
    padding = np.zeros((1, LEVELS), dtype=np.int64)
    out.npy(
        "indices.npy",
        "the SID of every item, int64: row 0 is padding, row i + 1 is item i",
        (feed.n_items + 1, LEVELS),
        "int64",
        [padding, feed.sids[:, :LEVELS]],
    )
    return _readme(feed, settings)


def _readme(feed: Feed, settings: DiscRecSettings) -> str:
    lines = [
        f"Put this folder at `<data_path>/{settings.name}` and start with `--data_path <data_path>/ "
        f"--dataset {settings.name}`. The name is one of four that it takes; the data are {feed.ref}.",
        "",
        "- The trainer reads no SIDs. It trains an RQ-VAE of its own, 4 levels of 256 codes, and asks that "
        "for them. To train on the SIDs of this release, put in the place of `rqvae.get_all_indices()` "
        "(`run_discrec.py` 594): `torch.from_numpy(np.load('<this folder>/indices.npy'))`.",
        f"- `in_dims` begins with {WIDTH} and cannot be given on the command line (`type=list` takes a text "
        f"apart); write {feed.dim(settings.embedding)} there, the width of these vectors.",
        "- It leaves `cache/` in this folder, by seed and length alone: remove it where files change.",
    ]
    if settings.cf:
        width = feed.dim(settings.cf)
        fits = "which is that" if width == BEHAVIOUR else f"so write {width} there, and in `--codebook_dim`"
        lines.append(
            f"- For `--id_type letter`: the last of `in_dims`, {BEHAVIOUR}, must be the width of the vectors "
            f"of behaviour, {width}, {fits}."
        )
    else:
        lines.append("- `--id_type letter` needs vectors of behaviour: export with `--set cf=NAME`.")
    return "\n".join([*lines, lc_rec.shared(feed)])


def _require_codes(feed: Feed) -> None:
    """Refuse levels of more codes than the trainer's shift leaves room for."""
    if max(feed.vocabulary.sizes) > CODES:
        raise feed.refuse(
            READER,
            f"levels of at most {CODES} codes",
            f"levels of {list(feed.vocabulary.sizes)}",
            f"Choose [tokenize] levels of {CODES} or fewer, and a collision policy that adds no digit",
        )


def _require_last_item(feed: Feed) -> None:
    """Refuse a last item without events: the trainer takes the highest number it sees for the count."""
    highest = max(int(chunk.items.max()) for chunk in feed.chunks(["user_index", "item_index"]))
    if highest + 1 != feed.n_items:
        raise feed.refuse(
            READER,
            "an event of the last item, as it counts items by the highest number in events",
            f"{feed.n_items - highest - 1:,} items after the last one with events",
            "Make a release of items with events: [clean] k_core of 1 or more, or a full run after an append",
        )


FORMAT = Format(
    "discrec",
    "DiscRec (Ten-Mao/DiscRec at 7cc75ce)",
    "inter JSON and vectors, and SIDs as the array of its embedding",
    write,
    DiscRecSettings,
    papers=(24,),
    protocols=("leave-one-out",),
)
