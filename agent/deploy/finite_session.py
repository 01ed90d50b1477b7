"""A session that remembers what each look put out, so that it can be said whether every number of it was one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.vision.input_fit import Shape
from agent.vision.runtime import Session


class FiniteSession:
    """Wraps a session; the outputs of its runs are kept until `trouble` has looked at them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._outputs: list[tuple[NDArray[Any], ...]] = []

    @property
    def digest(self) -> str:
        return self._session.digest

    @property
    def provider(self) -> str:
        return self._session.provider

    @property
    def opset(self) -> int:
        return self._session.opset

    @property
    def input_name(self) -> str:
        return self._session.input_name

    @property
    def input_shapes(self) -> Mapping[str, Shape]:
        return self._session.input_shapes

    @property
    def output_names(self) -> tuple[str, ...]:
        return self._session.output_names

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        outputs = self._session.run(inputs)
        self._outputs.append(outputs)
        return outputs

    def trouble(self) -> str:
        """Return which output of the runs since the last call holds NaN or an infinite number; empty where none does.

        Decoders look at what they use; a threshold drops NaN silently, since nothing compares with it.
        """
        runs, self._outputs = self._outputs, []
        for outputs in runs:
            for name, values in zip(self.output_names, outputs, strict=True):
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    return f"The output {name} holds NaN or an infinite number."
        return ""

    def close(self) -> None:
        self._session.close()
