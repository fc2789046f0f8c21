"""Deskew images, normalise the width of their digits, or enlarge them before a network."""

from typing import Any

import numpy as np

from digit_recognizer.training.backend import keras

ops = keras.ops
ENLARGEMENT = 28 / 25  # the central 25 × 25 pixels fill the image; digits are at most 20 pixels wide and high


def transform(images: Any, name: str) -> Any:
    """Apply the steps of a preprocessing, whose name joins them by dashes.

    ``deskew`` shears an image so that the covariance of its ink's x and y is 0. ``width`` scales the standard deviation
    of the ink's x to a fixed value, by a factor of at most 2. ``enlarge`` magnifies the centre of the image. Pixels are
    sampled with cubic interpolation. Networks with different preprocessing make different errors, which improves a
    blend. Width normalisation: D. Cireşan et al., "Multi-column Deep Neural Networks for Image Classification" (2012).

    Args:
        images: float (n, 28, 28, 1), 0 to 255.
        name: one of ``recipe.PREPROCESSING`` except ``none``.

    Returns:
        float (n, 28, 28, 1), 0 to 255.
    """
    steps, pixels = name.split("-"), images[..., 0]
    if "deskew" in steps or "width" in steps:
        pixels = _deskew(pixels, deskew="deskew" in steps, width="width" in steps)
    if "enlarge" in steps:
        weights = ops.convert_to_tensor(_enlarging_weights(), "float32")
        pixels = ops.matmul(ops.matmul(weights, pixels), ops.transpose(weights))
    return ops.clip(pixels, 0, 255)[..., None]


def _deskew(ink: Any, *, deskew: bool, width: bool) -> Any:
    """Deskew images, normalise their width, or both: float (n, 28, 28)."""
    index = ops.arange(28, dtype="float32")
    column, row = ops.reshape(index, (1, 1, 28)), ops.reshape(index, (1, 28, 1))
    total = ops.sum(ink, axis=(1, 2), keepdims=True) + 1e-6

    def mean(values: Any) -> Any:
        return ops.sum(ink * values, axis=(1, 2), keepdims=True) / total

    # JAX arrays do not support the minus operator with Keras tensors.
    x, y = ops.subtract(column, mean(column)), ops.subtract(row, mean(row))
    shear = ops.clip(mean(x * y) / (mean(y * y) + 1e-6), -1, 1) if deskew else 0.0
    deviation = ops.sqrt(mean(ops.square(x - shear * y)))
    scale = ops.clip(deviation / 4.5, 0.5, 1.2) if width else 1.0
    source = mean(column) + scale * (column - 13.5) + shear * y  # (n, 28, 28): the input column of each output pixel
    first = ops.floor(source)
    weights = _cubic(source - first)
    padding = 4
    padded = ops.reshape(ops.pad(ink, ((0, 0), (0, 0), (padding, padding))), (-1,))
    # Rows are counted through all images, because a look-up by a single index is the fastest.
    image_row = 28 * (ops.cumsum(ops.ones_like(ink[..., :1], "int32"), axis=0) - 1) + ops.cast(row, "int32")
    position = (28 + 2 * padding) * image_row + padding + ops.cast(ops.clip(first, 1 - padding, 25 + padding), "int32")
    return sum(weight * ops.take(padded, position + step) for step, weight in enumerate(weights, -1))


def _cubic(t: Any) -> tuple[Any, Any, Any, Any]:
    """Return the weights of the four nearest pixels at a fraction ``t`` between the inner two (R. Keys, 1981)."""
    return (
        ((1 - 0.5 * t) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((2 - 1.5 * t) * t + 0.5) * t,
        (t - 1) * t * t / 2,
    )


def _enlarging_weights() -> Any:
    """Return the weights of the input pixels (across) in each output pixel (down) of a row or column: (28, 28)."""
    source = 13.5 + (np.arange(28) - 13.5) / ENLARGEMENT
    weights = np.zeros((28, 28))
    for step, values in enumerate(_cubic(source - np.floor(source)), -1):
        weights[np.arange(28), np.floor(source).astype(int) + step] += values
    return weights
