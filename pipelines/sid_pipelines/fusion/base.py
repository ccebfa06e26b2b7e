"""What a fusion is: options, `fit` on vectors of several modalities, and a transform by numpy alone.

A fusion is a frozen dataclass whose fields are the recipe's options; what it learns is a `Fitted`, arrays by
name. So an append makes the vectors of new items from the files of a release, without torch.
"""

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from sid_pipelines.fusion.inputs import Arrays, FitRows, Mask, Modality, Rows, any_there, hashed, pairs_among
from sid_schemas import DataError, MissingExtraError
from sid_tokenizers import Events
from sid_tokenizers.base import Vectors

FORMAT = 1
MAIN = ""  # the name of the fused table among those that a transform gives
COLLABORATIVE = "collaborative"


@dataclass(frozen=True, kw_only=True)
class Fusion(ABC):
    """A way to make one vector of several; its fields are the recipe's options.

    seed: of every draw and of training. fit_items: at most so many items are fitted on, drawn by the seed
    among those that may be; their vectors are held in memory. 0 for all.

    name: in recipes. source: paper, section and how sure the constants are: [P] printed in the paper, [S]
    secondary knowledge of it, [D] decided here. needs: a package beyond the core that `fit` imports, and
    the extra that brings it. needs_pairs, needs_events: whether it is fitted on item pairs, on train events.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[tuple[str, str] | None] = None
    needs_pairs: ClassVar[bool] = False
    needs_events: ClassVar[bool] = False

    seed: int = 0
    fit_items: int = 100_000

    def check_params(self, inputs: Mapping[str, str]) -> None:
        """Raise DataError naming an option that does not fit. inputs: name -> modality, in order."""
        if not inputs:
            raise DataError(f"fusion {self.name!r}: expected at least one input, got none")
        if self.fit_items < 0 or self.seed < 0:
            raise DataError(f"fit_items and seed: expected >= 0, got {self.fit_items} and {self.seed}")

    def scope(self, inputs: Mapping[str, Modality]) -> Mask:
        """Give the items whose modalities let them be fitted on: by default any input is enough."""
        return any_there({name: one.present for name, one in inputs.items()})

    @abstractmethod
    def learn(self, rows: FitRows) -> tuple[Arrays, dict[str, Any]]:
        """Give what is learned by name, and facts for the report."""

    @abstractmethod
    def apply(
        self,
        arrays: Arrays,
        blocks: Mapping[str, Vectors],
        there: Mapping[str, Mask],
        kinds: Mapping[str, str],
    ) -> dict[str, tuple[Vectors, Mask]]:
        """Give tables of a block of items by name, MAIN first: vectors, and which items have one."""

    def with_fit_items(self, arrays: Arrays, made: Vectors, items: Rows) -> Vectors:
        """Put in what was learned of the fit items themselves: (m, k) fused vectors, (m,) item indexes.

        By default nothing: an item's vector is made of its modalities, whichever item it is.
        """
        return made

    def fit(
        self,
        inputs: Mapping[str, Modality],
        train: Mask,
        pairs: Rows | None = None,
        events: Events | None = None,
    ) -> "Fitted":
        """Learn from the items with a train event alone.

        inputs: by name, of the same n items; those that lack a modality are not asked for it. train: (n,)
        bool. pairs: (p, 2) items that belong together; events: of train, items being those of the inputs;
        those that leave the fit items are not used.
        Raises DataError where options, or too few items, do not allow a fit; MissingExtraError where a
        package is missing.
        """
        kinds = {name: one.kind for name, one in inputs.items()}
        self.check_params(kinds)
        self.check_package()
        lengths = {name: len(one.vectors) for name, one in inputs.items()} | {"train": len(train)}
        if len(set(lengths.values())) > 1:
            raise DataError(f"fusion {self.name!r}: expected as many items in each input, got {lengths}")
        allowed = np.flatnonzero(self.scope(inputs) & train)
        if self.needs_pairs:
            if pairs is None:
                raise DataError(f"fusion {self.name!r}: expected item pairs, got none; add [pairs]")
            allowed = np.intersect1d(allowed, pairs)
        if self.needs_events and events is None:
            raise DataError(f"fusion {self.name!r}: expected train events, got none; pass events=Events(...)")
        chosen = allowed
        if 0 < self.fit_items < len(allowed):
            draw = np.random.default_rng(self.seed)
            chosen = np.sort(draw.choice(allowed, self.fit_items, replace=False))
        if len(chosen) < 2:
            raise DataError(
                f"fusion {self.name!r}: {len(chosen)} items can be fitted on; expected 2 or more with a "
                f"train event and what it needs of {', '.join(inputs)}"
            )
        blocks = {name: one.vectors.rows(chosen) for name, one in inputs.items()}
        present = {name: one.present[chosen] for name, one in inputs.items()}
        among = pairs_among(pairs, chosen) if self.needs_pairs and pairs is not None else None
        seen = events.of(chosen, len(train)) if self.needs_events and events is not None else None
        rows = FitRows(blocks, present, kinds, chosen, among, seen)
        arrays, facts = self.learn(rows)
        fit = {
            "fit_scope": "items with a train event",
            "fit_items": len(chosen),
            "fit_items_in_scope": len(allowed),
            "fit_sha256": hashed(rows),
            "seed": self.seed,
        }
        dims = {name: one.vectors.dim for name, one in inputs.items()}
        return Fitted(self, kinds, dims, arrays, {**fit, **facts})

    @classmethod
    def check_package(cls) -> None:
        """Raise MissingExtraError where what `fit` needs is not installed; nothing is imported."""
        if cls.needs and importlib.util.find_spec(cls.needs[0]) is None:
            raise MissingExtraError(f"Fusion {cls.name!r} ({cls.needs[0]})", cls.needs[1])

    def params(self) -> dict[str, Any]:
        """Give the options as JSON has them."""
        values = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@dataclass(frozen=True)
class Fitted:
    """A fusion with what it learned; transforms with numpy alone.

    kinds, dims: modality and width of each input, by name, in order. facts: fit scope, fit items, seed,
    hash of the fit rows, and what the method measured.
    """

    fusion: Fusion
    kinds: Mapping[str, str]
    dims: Mapping[str, int]
    arrays: Arrays
    facts: Mapping[str, Any]

    def tables(
        self, blocks: Mapping[str, Vectors], there: Mapping[str, Mask], items: Rows | None = None
    ) -> dict[str, tuple[Vectors, Mask]]:
        """Give every table of a block of items: "" is the fused one, the others go beside it.

        blocks: (m, d) float32 by input. there: (m,) which items have a vector to be used; what stands in
        the others' rows does not matter. items: (m,) their item indexes, for fusions that know the items
        they were fitted on; without them all are new. A row's numbers do not depend on the rows beside it.
        Gives (m, k) float32, zero where nothing is there, and (m,) which items have one.
        """
        if set(blocks) != set(self.dims) or set(there) != set(self.dims):
            raise DataError(f"fusion: expected inputs {', '.join(self.dims)}, got {', '.join(blocks)}")
        checked = {}
        for name, dim in self.dims.items():
            block = np.ascontiguousarray(blocks[name], dtype=np.float32)
            if block.shape != (len(there[name]), dim):
                expected = f"({len(there[name])}, {dim})"
                raise DataError(f"fusion, input {name!r}: expected shape {expected}, got {block.shape}")
            checked[name] = np.where(there[name][:, None], block, np.float32(0))
        made = self.fusion.apply(self.arrays, checked, there, self.kinds)
        if items is not None:
            fused, mask = made[MAIN]
            made[MAIN] = self.fusion.with_fit_items(self.arrays, fused, items), mask
        return {name: (np.where(mask[:, None], Y, np.float32(0)), mask) for name, (Y, mask) in made.items()}

    def transform(
        self, blocks: Mapping[str, Vectors], there: Mapping[str, Mask], items: Rows | None = None
    ) -> Vectors:
        """Give the fused vectors of a block of items: (m, k) float32."""
        return self.tables(blocks, there, items)[MAIN][0]

    @property
    def widths(self) -> dict[str, int]:
        """Give the width of every table, by the names that `tables` has."""
        empty = {name: np.empty((0, dim), dtype=np.float32) for name, dim in self.dims.items()}
        none = {name: np.empty(0, dtype=bool) for name in self.dims}
        return {name: Y.shape[1] for name, (Y, _) in self.tables(empty, none).items()}

    def save(self, folder: str | Path) -> None:
        """Write `fusion.json` and `fusion.safetensors` into a folder, made where missing."""
        from safetensors.numpy import save_file

        config = {
            "format": FORMAT,
            "fusion": self.fusion.name,
            "params": self.fusion.params(),
            "inputs": {name: {"modality": self.kinds[name], "dim": dim} for name, dim in self.dims.items()},
            "facts": dict(self.facts),
        }
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        save_file(arrays, folder / "fusion.safetensors")
        (folder / "fusion.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, named: Callable[[str], type[Fusion]]) -> Self:
        """Read back what `save` wrote. named: gives a fusion's class by name."""
        from safetensors.numpy import load_file

        folder = Path(folder)
        try:
            config = json.loads((folder / "fusion.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{folder}: holds no fusion ({error.strerror}); expected fusion.json") from None
        if config["format"] != FORMAT:
            raise DataError(f"{folder}: expected a fusion in format {FORMAT}, got {config['format']}")
        params: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in config["params"].items()
        }
        return cls(
            named(config["fusion"])(**params),
            {name: one["modality"] for name, one in config["inputs"].items()},
            {name: one["dim"] for name, one in config["inputs"].items()},
            load_file(folder / "fusion.safetensors"),
            config["facts"],
        )


def collaborative_input(fusion: str, kinds: Mapping[str, str]) -> str:
    """Give the one input that is collaborative; raises DataError unless it is one, beside others."""
    found = [name for name, kind in kinds.items() if kind == COLLABORATIVE]
    if len(found) != 1 or len(kinds) < 2:
        got = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise DataError(
            f"fusion {fusion!r}: expected one collaborative input and text or image beside it, got {got}"
        )
    return found[0]
