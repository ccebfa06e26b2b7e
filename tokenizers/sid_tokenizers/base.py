"""What every tokenizer is: parameters in, `fit`, `encode`, `decode`, and a folder that holds all of it.

The law is scikit-learn's: `__init__` only stores parameters, what `fit` learns ends in `_`, a second
`fit` starts afresh. `get_params` and `set_params` follow it too, so `sklearn.base.clone` works; we do
not inherit from `BaseEstimator` because importing it takes longer than a whole `sidmill plan`.
"""

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError

Vectors = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]

FORMAT = 1


class Tokenizer(ABC):
    """A scheme that gives every vector a fixed number of codes, coarse to fine."""

    name: ClassVar[str]
    paper: ClassVar[str]

    levels: Sequence[int]

    @abstractmethod
    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range. `fit` calls it; recipes do too."""

    @abstractmethod
    def fit(
        self,
        X: npt.ArrayLike,
        *,
        item_ids: Sequence[str] | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Learn from X: (n, d). Row order does not matter."""

    @abstractmethod
    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, L) int32."""

    @abstractmethod
    def decode(self, codes: npt.ArrayLike) -> Vectors:
        """Give the vectors that codes stand for: (n, L) -> (n, d) float32."""

    @abstractmethod
    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give how far each vector is from every code that may follow its prefix.

        X: (n, d); prefixes: (n, p) codes already taken, p < L. Returns (n, K of level p), squared L2.
        Collision resolution ranks candidates by it.
        """

    @abstractmethod
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Give everything learned, by name, as `_restore` takes it back."""

    @abstractmethod
    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take back what `_arrays` gave."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the constructor's parameters by name (`deep` is scikit-learn's and has no effect)."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set constructor parameters by name; raises ValueError for a name that is not one."""
        for name, value in params.items():
            if name not in self._parameter_names():
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Show the constructor call that gives this tokenizer."""
        inner = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({inner})"

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer.safetensors` into a folder, made where missing."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        save_file(arrays, folder / "tokenizer.safetensors")
        config = {"format": FORMAT, "tokenizer": self.name, "params": self.get_params()}
        text = json.dumps(config, indent=2, default=list) + "\n"
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read back what `save` wrote; codes of the loaded tokenizer equal the saved one's."""
        from safetensors.numpy import load_file

        folder = Path(folder)
        config = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        if config["format"] != FORMAT or config["tokenizer"] != cls.name:
            found = f"{config['tokenizer']!r} in format {config['format']}"
            raise DataError(f"{folder}: expected {cls.name!r} in format {FORMAT}, got {found}")
        tokenizer = cls(**config["params"])
        tokenizer._restore(load_file(folder / "tokenizer.safetensors"))
        return tokenizer


def check_vectors(X: npt.ArrayLike, *, dim: int | None = None) -> Vectors:
    """Give X as a (n, d) float32 array, or raise DataError naming the first offending row."""
    array = np.ascontiguousarray(X, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"vectors: expected a matrix (n, d), got shape {array.shape}")
    if dim is not None and array.shape[1] != dim:
        raise DataError(f"vectors: expected {dim} columns as in fit, got {array.shape[1]}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        count = int((~finite).sum())
        raise DataError(
            f"vectors, row {row}: holds NaN or infinity ({count} such rows); "
            "expected finite numbers. Drop these rows or mend the encoder"
        )
    return array
