"""No ID says anything of a held-out event: schemes that read behaviour read that of train alone."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers import run_chain, small_dump, swapped

from sid_tokenizers import TOKENIZERS

CF = '[[embed]]\n[[embed]]\nmodality = "collaborative"\nmodel = "ppmi-svd"\ndim = 4\n'
QUICK = ("levels=[4, 4]", "latent=4", "hidden=[8]", "epochs=2")
READ_BEHAVIOUR = {
    "sequential": (),
    "spectral": ("n_clusters=2", "token_size=4"),
    "spectral+category": ("n_clusters=2", "token_size=4"),
    "letter": QUICK,
    "prism": QUICK,
    "setrec": ("width=4", "hidden=[8]", "epochs=2"),
}


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and the same over a dump in which users had other things in their last two events."""
    recipes = []
    for name in ("as-it-was", "altered"):
        recipe = small_dump(tmp_path_factory.mktemp("leaks") / name, movies=14, users=20)
        recipe.write_text(recipe.read_text().replace("[tokenize]\nlevels = [4, 4]\n", CF))
        recipes.append(recipe)
    swapped(recipes[1])
    return recipes[0], recipes[1]


def coded(recipe: Path, name: str, *overrides: str) -> tuple[pa.Table, pa.Table]:
    """Give what a scheme gave each item, and the events by split."""
    given = [f"tokenize.{one}" for one in READ_BEHAVIOUR[name]]
    given += [f"tokenize.tokenizer={name}", "tokenize.vectors=text", *overrides]
    done = run_chain(recipe, recipe.parent / "w", *given, until="collisions")
    table = "vectors_setrec" if name == "setrec" else "codes"
    return done.outputs["tokenize"].read(table), done.outputs["split"].read("interactions")


def test_the_list_of_schemes_is_whole() -> None:
    behaviour = {"cf", "events", "popularity"}
    reading = {name for name, scheme in TOKENIZERS.items() if behaviour & set(scheme.traits.inputs)}
    assert reading == set(READ_BEHAVIOUR)


@pytest.mark.parametrize("name", READ_BEHAVIOUR)
def test_held_out_events_change_no_id(dumps: tuple[Path, Path], name: str) -> None:
    (ids, events), (altered_ids, altered) = (coded(recipe, name) for recipe in dumps)
    assert ids.equals(altered_ids)
    train, other = (
        one.filter(pc.equal(one["split"], "train"))["item_index"].to_pylist() for one in (events, altered)
    )
    assert train == other
    assert events["item_index"].to_pylist() != altered["item_index"].to_pylist()


def test_let_in_they_change_ids(dumps: tuple[Path, Path]) -> None:
    """Where the last events train too, the altered dump gives other IDs: the test above can fail."""
    let_in = ("split.protocol=user-holdout", "split.ratios=[0.9, 0.05, 0.05]")
    ids, altered = (coded(recipe, "sequential", *let_in)[0] for recipe in dumps)
    assert not ids.equals(altered)
