"""LETTER: LC-Rec's files, and vectors of behaviour as the torch tensor that its tokenizer is aligned with.

Two trainers read them: LETTER-TIGER, which decodes along a trie, and LETTER-LC-Rec, whose `data.py` is
LC-Rec's to the byte.
"""

from sid_pipelines.trainers.base import Format
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.formats import lc_rec
from sid_pipelines.trainers.writing.folder import Folder

READER = "LETTER"


class LetterSettings(lc_rec.LcRecSettings):
    """name: of the data set in file names, empty for the release's. embedding: whose vectors are tokenized.

    index_file: what follows the name of the file of SIDs, as in the trainer's `--index_file`.
    cf: the embedding of behaviour, for the trainer's `--cf_emb`.
    """

    cf: str = "collaborative"


def write(feed: Feed, out: Folder, settings: LetterSettings) -> str:
    """Write the files of one data set."""
    feed.require_leave_one_out(READER)
    feed.require_levels(READER)
    feed.require_length(READER)
    for embedding in (settings.embedding, settings.cf):
        feed.require_embedding(embedding)
    name = settings.name or feed.dataset
    dim = feed.dim(settings.cf)
    behaviour = f"{name}-{dim}d-{settings.cf}.pt"
    lc_rec.write_data_set(feed, out, name, settings)
    write_behaviour(feed, out, behaviour, settings.cf)
    return f"""\
{lc_rec.how_to_start(name, settings)}
This holds for `LETTER-TIGER` and for `LETTER-LC-Rec`. The latter reads what LC-Rec does; here is no
`{name}.user.json`, so it needs `--tasks {lc_rec.TASKS}`.

- LETTER-TIGER's *default* of `--index_file` is `.llamaindex-sk4-sk.json`; its scripts pass `.index.json`.
  Name the file that is here, or export again with `--set index_file=...`.
- To learn SIDs with LETTER's own tokenizer: `python RQ-VAE/main.py --data_path
  .../{name}.emb-{settings.embedding}.npy --cf_emb .../{behaviour} --e_dim {dim}`.
  Codes are compared with behaviour by a dot product (`rqvae.py` 73 to 80), so `--e_dim`, 32 by default, must
  be the width of these vectors, {dim}.
- `{behaviour}` holds numbers alone: `torch.load` takes it with `weights_only=True`.
{lc_rec.shared(feed)}"""


def write_behaviour(feed: Feed, out: Folder, file: str, embedding: str) -> None:
    """Write one embedding as a torch tensor, row i being item i: `main.py` 68 squeezes it, for no effect."""
    says = f"vectors of `{embedding}`, a float32 torch tensor and nothing else; row i is item i"
    out.tensor(file, says, (feed.n_items, feed.dim(embedding)), "float32", feed.vectors(embedding))


FORMAT = Format(
    "letter",
    "LETTER (HonghuiBao2000/LETTER at 8d0154e)",
    "LC-Rec's files, and vectors of behaviour as a torch tensor",
    write,
    LetterSettings,
    papers=(24,),
    protocols=("leave-one-out",),
)
