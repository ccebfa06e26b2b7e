"""NGCF: two text files of users' items, train and test; other graph recommenders read the same two.

The trainer knows no validation: what is held out for it stands in a file of its own, which no program reads.
alpharec.py has the same lines with vectors beside them.
"""

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.reading.edges import Edges
from sid_pipelines.trainers.writing.folder import Folder

READER = "NGCF"


def write(feed: Feed, out: Folder, settings: Settings) -> str:
    """Write edges and what their numbers stand for."""
    with_valid = ("train", "test", "valid") if feed.count("valid") else ("train", "test")
    edges = Edges.of(feed, with_valid)
    edges.require(READER)
    for split in with_valid:
        edges.write(out, f"{split}.txt", split)
    edges.write_names(out, "user_list.txt", "item_list.txt")
    return f"""
Put this folder at `Data/{feed.dataset}` and start `NGCF.py --dataset {feed.dataset}` (utility/load_data.py
18 to 74).

- Edges of the graph are lines of `train.txt` alone. `valid.txt` is not read; append it to neither.
- Its README says a tab after the user; its code splits at single spaces, as here.
- The trainer's own data are 80 % train and 20 % test of each user, drawn at random:
  `protocol = "per-user-ratio"`, `ratios = [0.8, 0.0, 0.2]`, `draw = "random"`. This release is
  {feed.protocol}.
{edges.says().strip()}
"""


FORMAT = Format(
    "ngcf",
    "NGCF (xiangwang1223/neural_graph_collaborative_filtering at a718a4f)",
    "users' items as lines, train.txt and test.txt",
    write,
    papers=(51,),
)
