"""Deskew images and normalise the width of their digits before a network."""

from typing import Any

from digit_recognizer.training.backend import keras

ops = keras.ops


def transform(images: Any, name: str) -> Any:
    """Deskew images, normalise the width of their digits, or both.

    ``deskew`` shears an image so that the covariance of its ink's x and y is 0. ``width`` scales the standard deviation
    of the ink's x to a fixed value, by a factor of at most 2. ``deskew-width`` does both. Rows are sampled with cubic
    interpolation. Networks with different preprocessing make different errors, which improves a blend. Width
    normalisation: D. Cireşan et al., "Multi-column Deep Neural Networks for Image Classification" (2012).

    Args:
        images: float (n, 28, 28, 1), 0 to 255.
        name: one of ``recipe.PREPROCESSING`` except ``none``.

    Returns:
        float (n, 28, 28, 1), 0 to 255.
    """
    index = ops.arange(28, dtype="float32")
    column, row = ops.reshape(index, (1, 1, 28)), ops.reshape(index, (1, 28, 1))
    ink = images[..., 0]
    total = ops.sum(ink, axis=(1, 2), keepdims=True) + 1e-6

    def mean(values: Any) -> Any:
        return ops.sum(ink * values, axis=(1, 2), keepdims=True) / total

    # JAX arrays do not support the minus operator with Keras tensors.
    x, y = ops.subtract(column, mean(column)), ops.subtract(row, mean(row))
    shear = ops.clip(mean(x * y) / (mean(y * y) + 1e-6), -1, 1) if name.startswith("deskew") else 0.0
    deviation = ops.sqrt(mean(ops.square(x - shear * y)))
    scale = ops.clip(deviation / 4.5, 0.5, 1.2) if name.endswith("width") else 1.0
    source = mean(column) + scale * (column - 13.5) + shear * y  # (n, 28, 28): the input column of each output pixel
    first = ops.floor(source)
    t = source - first
    # Cubic convolution of the four nearest pixels (R. Keys, 1981); pixels outside the image are 0.
    weights = (
        ((1 - 0.5 * t) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((2 - 1.5 * t) * t + 0.5) * t,
        (t - 1) * t * t / 2,
    )
    padding = 4
    padded = ops.reshape(ops.pad(ink, ((0, 0), (0, 0), (padding, padding))), (-1,))
    # Rows are counted through all images, because a look-up by a single index is the fastest.
    image_row = 28 * (ops.cumsum(ops.ones_like(ink[..., :1], "int32"), axis=0) - 1) + ops.cast(row, "int32")
    position = (28 + 2 * padding) * image_row + padding + ops.cast(ops.clip(first, 1 - padding, 25 + padding), "int32")
    pixels = sum(weight * ops.take(padded, position + step) for step, weight in enumerate(weights, -1))
    return ops.clip(pixels, 0, 255)[..., None]
