"""What every scheme is: a name, parameters that are only stored, and a folder that holds all of it.

The law is scikit-learn's: `__init__` only stores parameters, what `fit` learns ends in `_`, a second
`fit` starts afresh. `get_params` and `set_params` follow it too, so `sklearn.base.clone` works; we do
not inherit from `BaseEstimator` because importing it takes longer than a whole `sidmill plan`.

Three kinds of schemes build on it: base.py gives vectors codes, indexer.py gives items IDs by what is known
of them, continuous.py gives items vectors.
"""

import importlib.util
import inspect
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError, MissingExtraError
from sid_tokenizers.catalogue import Catalogue

FORMAT = 2


@dataclass(frozen=True)
class Traits:
    """What a scheme gives and needs; the chain, the gates and the collision menu follow it.

    gives: codes, continuous vectors, or text. fixed_length: every SID has the same number of codes.
    ordered: codes run from coarse to fine, so that a shared prefix means likeness; without it, likeness
    is the number of codes two items share. unique: the scheme itself never gives two items one SID.
    soft: `encode_soft` is there. inputs: what it is fitted on: "vectors" and fields of `Catalogue`.
    stacked: X has the behaviour vectors (`Catalogue.cf`) as its last columns, in fit and in encode. package,
    extra: what `fit` imports beyond the core, and the extra of sidmill that brings it.
    """

    gives: Literal["codes", "vectors", "text"] = "codes"
    fixed_length: bool = True
    ordered: bool = True
    unique: bool = False
    soft: bool = False
    inputs: tuple[str, ...] = ("vectors",)
    stacked: bool = False
    package: str | None = None
    extra: str | None = None


class Scheme(ABC):
    """A way to give items identifiers."""

    name: ClassVar[str]
    paper: ClassVar[str]
    traits: ClassVar[Traits]

    seed: int
    fit_: dict[str, Any]  # rows, dim, sha256 of what it was fitted on

    @abstractmethod
    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range. `fit` calls it; recipes do too."""

    @classmethod
    def check_package(cls) -> None:
        """Raise MissingExtraError where what `fit` needs is not installed; nothing is imported."""
        package, extra = cls.traits.package, cls.traits.extra
        if package and extra and importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"Tokenizer {cls.name!r} ({package})", extra)

    @property
    def needs(self) -> tuple[str, ...]:
        """Give what of `traits.inputs` these parameters ask for."""
        return self.traits.inputs

    def _check_about(self, about: Catalogue | None) -> None:
        """Raise DataError naming what the scheme is fitted on and is not given."""
        for need in self.needs:
            if need != "vectors" and (about is None or getattr(about, need) is None):
                raise DataError(f"{self.name} is fitted on {need} too: pass about=Catalogue({need}=...)")

    @abstractmethod
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Give everything learned, by name, as `_restore` takes it back."""

    @abstractmethod
    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take back what `_arrays` gave."""

    def _fitted(self) -> int:
        """Give the number of columns seen in fit, or raise DataError where there was none."""
        if not hasattr(self, "fit_"):
            raise DataError(f"{type(self).__name__} is not fitted yet: call fit(X) first")
        return int(self.fit_["dim"])

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

        self._fitted()
        config = {"format": FORMAT, "tokenizer": self.name, "params": self.get_params(), "fit": self.fit_}
        text = json.dumps(config, indent=2, default=_plain) + "\n"
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        save_file(arrays, folder / "tokenizer.safetensors")
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read back what `save` wrote; codes of the loaded tokenizer equal the saved one's."""
        from safetensors.numpy import load_file

        folder = Path(folder)
        config = read_config(folder)
        if config["format"] != FORMAT or config["tokenizer"] != cls.name:
            found = f"{config['tokenizer']!r} in format {config['format']}"
            raise DataError(f"{folder}: expected {cls.name!r} in format {FORMAT}, got {found}")
        tokenizer = cls(**config["params"])
        tokenizer.fit_ = config["fit"]
        tokenizer._restore(load_file(folder / "tokenizer.safetensors"))
        return tokenizer


def read_config(folder: Path) -> dict[str, Any]:
    """Read `tokenizer.json`, or raise DataError saying that there is none."""
    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: holds no tokenizer ({error.strerror}); expected tokenizer.json") from None
    config: dict[str, Any] = json.loads(text)
    return config


def _plain(value: Any) -> Any:
    """Give numpy's numbers and arrays, and other sequences, as JSON has them."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else list(value)
