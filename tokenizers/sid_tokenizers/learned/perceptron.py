"""Perceptrons without torch: what rq_vae_training.py learned, run with numpy.

Encode and decode of a tokenizer that torch trained are a few matrix products; this file does them, so
that a saved tokenizer is read and used where torch is not installed.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.blocks import over_blocks
from sid_tokenizers.products import product
from sid_tokenizers.residual import ResidualTokenizer, unit_rows

InputScaling = Literal["none", "scale", "batchnorm-l2"]
SCALINGS = ("none", "scale", "batchnorm-l2")
Activation = Literal["relu", "sigmoid"]
ACTIVATIONS = ("relu", "sigmoid")
EPSILON = 1e-5  # added to variances, as torch's BatchNorm1d and layer_norm do


@dataclass(frozen=True)
class Perceptron:
    """Linear layers with an activation between them and none after the last.

    weights: one (out, in) float32 matrix per layer, as torch keeps it; biases: (out,) float32 each.
    shortcut: the output is x + layers(x) (RQ-KMeans+), else layers(x). normed: `layer_norm` before each
    activation (PRISM). activation: ReLU, or sigmoid (MMGRec's decoder).
    """

    weights: tuple[Vectors, ...]
    biases: tuple[Vectors, ...]
    shortcut: bool = False
    normed: bool = False
    activation: Activation = "relu"

    def __call__(self, X: Vectors) -> Vectors:
        """Run the layers: (n, in) float32 -> (n, out) float32."""
        out = np.empty((len(X), len(self.biases[-1])), dtype=np.float32)

        def work(rows: slice) -> None:
            hidden = X[rows]
            for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                if layer:
                    hidden = activated(layer_norm(hidden) if self.normed else hidden, self.activation)
                hidden = product(hidden, weight.T) + bias
            out[rows] = X[rows] + hidden if self.shortcut else hidden

        over_blocks(len(X), work)
        return out

    def arrays(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """Give the layers by name: prefix_weight_0, prefix_bias_0, ..."""
        named: dict[str, npt.NDArray[Any]] = {}
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            named[f"{prefix}_weight_{layer}"] = weight
            named[f"{prefix}_bias_{layer}"] = bias
        return named

    @classmethod
    def from_arrays(
        cls,
        prefix: str,
        arrays: dict[str, npt.NDArray[Any]],
        *,
        shortcut: bool = False,
        normed: bool = False,
        activation: Activation = "relu",
    ) -> Self:
        """Take back what `arrays` gave."""
        layers = sum(name.startswith(f"{prefix}_weight_") for name in arrays)
        weights = tuple(arrays[f"{prefix}_weight_{layer}"] for layer in range(layers))
        biases = tuple(arrays[f"{prefix}_bias_{layer}"] for layer in range(layers))
        return cls(weights, biases, shortcut, normed, activation)


def activated(hidden: Vectors, activation: Activation) -> Vectors:
    """Give max(x, 0), or 1 / (1 + exp(-x)) in a form that never overflows."""
    if activation == "relu":
        return np.maximum(hidden, np.float32(0))
    sigmoid: Vectors = np.float32(0.5) * (np.tanh(np.float32(0.5) * hidden) + np.float32(1))
    return sigmoid


def layer_norm(X: Vectors) -> Vectors:
    """Scale every row to mean 0 and variance 1: (n, d) -> (n, d). There are no learned gains."""
    centred = X - X.mean(axis=1, keepdims=True)
    normed: Vectors = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + EPSILON)
    return normed


@dataclass(frozen=True)
class Scaling:
    """What is done to vectors before the encoder sees them: (x - shift) / scale, then to length 1 if unit.

    shift, scale: (d,) float32. The length is lost for good, so `undo` leaves unit vectors as they are.
    """

    shift: Vectors
    scale: Vectors
    unit: bool

    @classmethod
    def learned(cls, X: Vectors, weight: Weights | None, kind: InputScaling) -> Self:
        """Learn from the fit rows: (n, d).

        none: leave them. scale: move the mean to zero and divide by one number, the root of the mean
        variance, so that distances keep their proportions. batchnorm-l2: divide each column by its own
        deviation and scale rows to length 1 (GRID; its batch statistics are those of all rows here, and
        there are no learned gains).
        """
        shift, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
        if kind != "none":
            shift = np.average(X, axis=0, weights=weight)
            variance = np.average((X - shift) ** 2, axis=0, weights=weight)
            if kind == "batchnorm-l2":
                scale = np.sqrt(variance + EPSILON)
            elif variance.mean() > 0:
                scale[:] = np.sqrt(variance.mean())
        return cls(shift.astype(np.float32), scale.astype(np.float32), kind == "batchnorm-l2")

    def __call__(self, X: Vectors) -> Vectors:
        """Give what the encoder sees: (n, d) -> (n, d)."""
        scaled: Vectors = (X - self.shift) / self.scale
        return unit_rows(scaled) if self.unit else scaled

    def undo(self, Y: Vectors) -> Vectors:
        """Give vectors for what the decoder made: (n, d) -> (n, d)."""
        return Y if self.unit else Y * self.scale + self.shift


class PerceptronTokenizer(ResidualTokenizer):
    """A residual tokenizer that codes what an encoder makes of scaled vectors.

    Learns `scaling_`, `encoder_`, `decoder_` and, in latent space, `codebooks_`; and `history_`, (checks,
    3) float64: epoch, rows that collide (N - U), loss at each check of the fit.
    """

    scaling_: Scaling
    encoder_: Perceptron
    decoder_: Perceptron
    history_: npt.NDArray[np.float64]

    @property
    def shortcuts(self) -> tuple[bool, bool]:
        """Say whether the encoder, and the decoder, adds its input to its output."""
        return False, False

    @property
    def decoder_activation(self) -> Activation:
        """Say what stands between the decoder's layers."""
        return "relu"

    @property
    def unit_inputs(self) -> bool:
        """Say whether vectors are scaled to length 1, so that `decode` cannot give them back."""
        return False

    @property
    def reconstructs(self) -> bool:
        """Say no where the decoder makes normalized vectors."""
        return not self.unit_inputs

    def _to_latent(self, X: Vectors) -> Vectors:
        return self.encoder_(self.scaling_(X))

    def _from_latent(self, Z: Vectors) -> Vectors:
        return self.scaling_.undo(self.decoder_(Z))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            **super()._arrays(),
            **self.encoder_.arrays("encoder"),
            **self.decoder_.arrays("decoder"),
            "input_shift": self.scaling_.shift,
            "input_scale": self.scaling_.scale,
            "history": self.history_,
        }

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.encoder_ = Perceptron.from_arrays("encoder", arrays, shortcut=self.shortcuts[0])
        self.decoder_ = Perceptron.from_arrays(
            "decoder", arrays, shortcut=self.shortcuts[1], activation=self.decoder_activation
        )
        self.scaling_ = Scaling(arrays["input_shift"], arrays["input_scale"], self.unit_inputs)
        self.history_ = arrays["history"]
