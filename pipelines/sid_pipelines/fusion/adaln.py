"""Align content to behaviour by AdaLN and InfoNCE, then put both side by side (PRORec, UNGER).

Unlike cf_align.py both ends live on one sphere, so that either can stand for the other where one is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sid_pipelines.fusion.base import MAIN, collaborative_input
from sid_pipelines.fusion.inputs import Arrays, FitRows, Mask
from sid_pipelines.fusion.trained import Trained
from sid_pipelines.fusion.whitening import Whitening
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.perceptron import Perceptron
from sid_tokenizers.residual import unit_rows

EPSILON = np.float32(1e-5)  # as in training.py


@dataclass(frozen=True, kw_only=True)
class AdaLN(Trained):
    """[norm E_C; norm E_T] / sqrt(2), E_T = (1 + s(E_S)) * LN(W E_S + b) + t(E_S).

    E_C is the collaborative vector, centred; E_S the content; s and t are linear and start at zero. Trained
    by symmetric InfoNCE(E_C, E_T) on the items that have both.
    An item with one half alone has it twice. E_T is published beside the fused table, as `<name>_content`.

    temperature: of InfoNCE.
    """

    name: ClassVar[str] = "adaln-infonce"
    source: ClassVar[str] = (
        "[S] PRORec = UNGER (TOKENIZERS.md S15a): AdaLN, symmetric InfoNCE, temperature .07, [norm E_C; norm "
        "E_T]; [D] the CF model is frozen (no joint next-item loss), linear s and t from zero, the schedule, "
        "whitened content, centred E_C, and which half stands in for a missing one"
    )

    learning_rate: float = 5e-3
    temperature: float = 0.07

    def check_params(self, inputs: Mapping[str, str]) -> None:
        """Raise DataError naming an option that does not fit."""
        super().check_params(inputs)
        collaborative_input(self.name, inputs)

    def learn(self, rows: FitRows) -> tuple[Arrays, dict[str, Any]]:
        """Train; facts: losses, and how often an item's E_T is nearest to its E_C, before and after."""
        from sid_pipelines.fusion.training import train_adaln

        behaviour = rows.blocks[collaborative_input(self.name, rows.kinds)]
        centre, _ = Whitening.learned(behaviour, "none")
        arrays = self.learn_content(rows) | centre.arrays("e_c:")
        content, _ = self.made_ready(arrays, rows.blocks, rows.present, rows.kinds)
        learned, facts = train_adaln(
            content, unit_rows(centre(behaviour)), self.schedule, temperature=self.temperature
        )
        return arrays | learned, facts

    def apply(
        self,
        arrays: Arrays,
        blocks: Mapping[str, Vectors],
        there: Mapping[str, Mask],
        kinds: Mapping[str, str],
    ) -> dict[str, tuple[Vectors, Mask]]:
        """Give the fused table, and E_T with length 1 as `content`."""
        name = collaborative_input(self.name, kinds)
        behaviour = unit_rows(Whitening.from_arrays("e_c:", arrays)(blocks[name]))
        content, has_content = self.made_ready(arrays, blocks, there, kinds)
        adapted = unit_rows(adaln(arrays, content))
        left = np.where(there[name][:, None], behaviour, adapted)
        right = np.where(has_content[:, None], adapted, behaviour)
        both: Vectors = np.concatenate([left, right], axis=1) * np.float32(0.5**0.5)
        return {MAIN: (both, there[name] | has_content), "content": (adapted, has_content)}


def adaln(arrays: Arrays, content: Vectors) -> Vectors:
    """Give (1 + s(x)) * LN(W x + b) + t(x): (n, d) -> (n, e)."""
    hidden, scale, shift = (
        Perceptron((arrays[f"weight_{part}"],), (arrays[f"bias_{part}"],))(content) for part in "wst"
    )
    centred = hidden - hidden.mean(axis=1, keepdims=True)
    variance = np.square(centred).mean(axis=1, keepdims=True)
    adapted: Vectors = (1 + scale) * (centred / np.sqrt(variance + EPSILON)) + shift
    return adapted
