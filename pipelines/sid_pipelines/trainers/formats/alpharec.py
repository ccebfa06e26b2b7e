"""AlphaRec: users' items as lines for train, valid and test, and a vector of every item's text.

The lines are ngcf.py's. A user's vector is the mean of the train items' by the trainer itself (AlphaRec.py
77 to 91), so there is no file of it. Rows of the matrix follow the numbers of the files, which are the
release's own where every item stands in one.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.reading.edges import Edges
from sid_pipelines.trainers.writing.folder import Folder

READER = "AlphaRec"


class AlphaRecSettings(Settings):
    """embedding: whose vectors go along, under the name that `--lm_model v3` reads."""

    embedding: str = "text"


def write(feed: Feed, out: Folder, settings: AlphaRecSettings) -> str:
    """Write edges under cf_data, and the vectors of the items that stand in them under item_info."""
    dim = feed.dim(settings.embedding)
    edges = Edges.of(feed)
    edges.require(READER)
    for split in edges.counts:
        edges.write(out, f"cf_data/{split}.txt", split)
    edges.write_names(out, "cf_data/user_list.txt", "cf_data/item_list.txt")
    out.npy(
        "item_info/item_cf_embeds_large3_array.npy",
        f"vectors of `{settings.embedding}`, float32, row i is item i of the files",
        (edges.kept(edges.item_numbers), dim),
        "float32",
        _vectors(feed, settings.embedding, edges),
    )
    return f"""
Put this folder at `data/General/{feed.dataset}` and start `main.py --rs_type General --model_name AlphaRec
--dataset {feed.dataset} --lm_model v3`. `v3` reads that file name, whatever model the vectors are from.

- A name that has "mix" in it makes the trainer look for three data sets (abstract_data.py 78): do not choose
  one.
- The trainer keeps users by their number in `train.txt` and fails on a gap (abstract_data.py 178), so there
  is none.
{edges.says().strip()}
"""


def _vectors(feed: Feed, embedding: str, edges: Edges) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the vectors of the items that have a number, in order."""
    start = 0
    for batch in feed.vectors(embedding):
        yield batch[edges.item_numbers[start : start + len(batch)] >= 0]
        start += len(batch)


FORMAT = Format(
    "alpharec",
    "AlphaRec (LehengTHU/AlphaRec at 4b6c6cf)",
    "users' items as lines by split, and text vectors in item order",
    write,
    AlphaRecSettings,
    papers=(17, 54),
)
