"""Fixed transforms of the images before a network: deskewing and width normalisation."""

from typing import Any

from digit_recognizer.training.backend import keras

ops = keras.ops


def transform(images: Any, name: str) -> Any:
    """Deskew images, normalise the width of their digits, or both: rows are shifted and scaled, sampled cubically.

    ``deskew`` shears an image until the covariance of its ink's coordinates is 0; ``width`` scales the standard deviation
    of the ink's columns to a fixed value, by a factor of at most 2; ``deskew-width`` does both. Networks with different
    preprocessing make different errors, from which a blend gains. The width normalisation is that of D. Cireşan et al.,
    "Multi-column Deep Neural Networks for Image Classification" (2012).

    Args:
        images: float (n, 28, 28, 1), 0 to 255.
        name: one of ``recipe.PREPROCESSING`` but ``none``.
    """
    place = ops.arange(28, dtype="float32")
    column, row = ops.reshape(place, (1, 1, 28)), ops.reshape(place, (1, 28, 1))
    ink = images[..., 0]
    total = ops.sum(ink, axis=(1, 2), keepdims=True) + 1e-6

    def mean(of: Any) -> Any:
        return ops.sum(ink * of, axis=(1, 2), keepdims=True) / total

    x, y = (
        ops.subtract(column, mean(column)),
        ops.subtract(row, mean(row)),
    )  # JAX's arrays do not know Keras' by minus
    lean = ops.clip(mean(x * y) / (mean(y * y) + 1e-6), -1, 1) if name.startswith("deskew") else 0.0
    spread = ops.sqrt(mean(ops.square(x - lean * y)))
    scale = ops.clip(spread / 4.5, 0.5, 1.2) if name.endswith("width") else 1.0
    source = mean(column) + scale * (column - 13.5) + lean * y  # (n, 28, 28): which column a pixel is read from
    first = ops.floor(source)
    t = source - first
    # R. Keys' cubic convolution (1981) of the four pixels around, those outside the image being blank.
    weights = (
        ((1 - 0.5 * t) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((2 - 1.5 * t) * t + 0.5) * t,
        (t - 1) * t * t / 2,
    )
    blank = 4
    known = ops.reshape(ops.pad(ink, ((0, 0), (0, 0), (blank, blank))), (-1,))
    # Rows counted through all images, for a look-up by one number is the fastest.
    line = 28 * (ops.cumsum(ops.ones_like(ink[..., :1], "int32"), axis=0) - 1) + ops.cast(row, "int32")
    at = (28 + 2 * blank) * line + blank + ops.cast(ops.clip(first, 1 - blank, 25 + blank), "int32")
    pixels = sum(weight * ops.take(known, at + step) for step, weight in enumerate(weights, -1))
    return ops.clip(pixels, 0, 255)[..., None]
