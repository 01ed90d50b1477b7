"""Takes outputs apart without trusting them: which one, of what shape, and whether it holds numbers at all."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, Decode, DecoderParams, Masks, Outputs, Unusable

_ROUNDING = 1e-3
_FARTHEST_PX = 1e9


class UnreadableError(ValueError):
    """An output is not what the manifest says; its text becomes the reason of the missing verdict."""


def answering(decode: Decode) -> Decode:
    """Turn the `UnreadableError` a decoder raises into the `Unusable` it answers."""

    @functools.wraps(decode)
    def answer(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
        try:
            # What a hostile graph computes overflows quietly here; `finite` finds it.
            with np.errstate(all="ignore"):
                return decode(outputs, params)
        except UnreadableError as reason:
            return Unusable(reason=str(reason))

    return answer


def output(
    outputs: Outputs,
    params: DecoderParams,
    which: int | str | None,
    shape: tuple[int | None, ...],
    *,
    may_be_empty: bool = False,
) -> NDArray[np.float32]:
    """Return one output as finite float32 of the shape asked for; leading axes of length 1 may be more or fewer.

    Args:
        which: place or name of the output.
        shape: None fits any length.
        may_be_empty: a length of 0 says that nothing was found; otherwise it says that the model is broken.

    Raises:
        UnreadableError: there is no such output, or it has another shape, holds no numbers, NaN or infinity.
    """
    array = raw(outputs, params, which)
    if array.dtype.kind not in "fiu":
        raise UnreadableError(f"The output {which!r} holds {array.dtype}, not numbers.")
    fitted = _fitted(array, shape)
    if fitted is None:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise UnreadableError(f"The output {which!r} has the shape {array.shape}; ({wanted}) is needed.")
    if not fitted.size and not may_be_empty:
        raise UnreadableError(f"The output {which!r} is empty: {array.shape}.")
    values: NDArray[np.float32] = fitted.astype(np.float32, copy=False)
    if array.dtype.kind == "f":
        finite(values)
    return values


def raw(outputs: Outputs, params: DecoderParams, which: int | str | None) -> NDArray[Any]:
    """Return one output as it is.

    Raises:
        UnreadableError: there is no such output.
    """
    place = which
    if place is None:
        raise UnreadableError("The manifest does not say which output is meant.")
    if isinstance(place, str):
        if place not in params.output_names:
            raise UnreadableError(
                f"The model has no output {place!r}; it has {', '.join(params.output_names) or 'no names'}."
            )
        place = params.output_names.index(place)
    if place >= len(outputs):
        raise UnreadableError(f"The model has {len(outputs)} outputs; there is no output {place}.")
    return np.asarray(outputs[place])


def finite(values: NDArray[np.float32]) -> None:
    """Refuse NaN and infinity.

    Raises:
        UnreadableError: at least one value is no number.
    """
    if not np.isfinite(values).all():
        raise UnreadableError("The output holds values that are no numbers.")


def probabilities(values: NDArray[np.float32], what: str) -> None:
    """Refuse values that cannot be probabilities.

    Raises:
        UnreadableError: one lies outside 0 to 1 by more than rounding.
    """
    if not values.size:
        return
    least, most = float(values.min()), float(values.max())
    if not (least >= -_ROUNDING and most <= 1.0 + _ROUNDING):
        raise UnreadableError(f"{what} from {least:.3g} to {most:.3g} are no probabilities.")


def clipped(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return scores within 0 to 1, which rounding may have left."""
    return np.clip(scores, np.float32(0.0), np.float32(1.0))


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / (1 + exp(-v)) without overflow, as (1 + tanh(v / 2)) / 2."""
    half: NDArray[np.float32] = np.float32(0.5) * (np.float32(1.0) + np.tanh(values * np.float32(0.5)))
    return half


def softmax(values: NDArray[np.float32], axis: int = -1) -> NDArray[np.float32]:
    """Return exp(v) / sum(exp(v)) along an axis, without overflow; the axis is not empty."""
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=axis, keepdims=True)
    return shares


def found(
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int64],
    masks: Masks | None = None,
) -> Candidates:
    """Return candidates with boxes.

    Raises:
        UnreadableError: a box has a side as good as at infinity, as after the exponential of a great number.
    """
    boxes = np.ascontiguousarray(boxes_xyxy, dtype=np.float32)
    if not (np.abs(boxes) <= _FARTHEST_PX).all():
        raise UnreadableError("A box reaches to infinity.")
    return Candidates(
        boxes_xyxy=boxes,
        scores=clipped(scores.astype(np.float32, copy=False)),
        class_ids=class_ids.astype(np.int64, copy=False),
        masks=masks,
    )


def _fitted(array: NDArray[Any], shape: tuple[int | None, ...]) -> NDArray[Any] | None:
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    if array.ndim < len(shape) and array.ndim > 0:
        array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    fits = array.ndim == len(shape) and all(
        wanted is None or length == wanted for length, wanted in zip(array.shape, shape, strict=True)
    )
    return array if fits else None
