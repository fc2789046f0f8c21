"""Augment training images by random geometric transforms, drawn anew in each epoch."""

import math
from typing import Any

import numpy as np

from digit_recognizer.training.backend import keras

ops = keras.ops
GRID_CELLS = 4  # of the distortion's grid, along each side


@keras.saving.register_keras_serializable("digit_recognizer")
class RandomWarp(keras.layers.Layer):
    """Rotate, scale, shift, shear and distort each image of a batch about its centre by its own random amounts.

    All transforms of an image are one map of coordinates, so that one bilinear interpolation blurs it only once.
    Pixels outside the image are 0. Outside training, images pass unchanged.

    Input and output: float (batch, height, width, channels).

    Args:
        rotation: largest angle in degrees, in both directions.
        zoom: largest change of scale; height and width are drawn independently from [1 - zoom, 1 + zoom].
        shift: largest shift as a fraction of the side, in both directions, drawn independently for each axis.
        shear: largest angle between verticals and the vertical axis in degrees, in both directions.
        distortion: largest displacement in pixels, along each axis, of the nodes of a grid of 4 × 4 cells; pixels
            between the nodes are displaced by bilinear interpolation.
        seed: seed of the layer's random numbers.
    """

    def __init__(
        self, *, rotation: float, zoom: float, shift: float, shear: float, distortion: float, seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rotation, self.zoom, self.shift, self.shear = rotation, zoom, shift, shear
        self.distortion, self.seed = distortion, seed
        self.random = keras.random.SeedGenerator(seed)

    @property
    def active(self) -> bool:
        """Whether the layer changes images at all."""
        return any((self.rotation, self.zoom, self.shift, self.shear, self.distortion))

    def call(self, images: Any, training: bool = False) -> Any:
        """Transform the batch in training, else return it unchanged."""
        if not training:
            return images
        batch, (height, width) = ops.shape(images)[0], images.shape[1:3]
        random = keras.random.uniform((6, batch), -1, 1, seed=self.random)
        angle = random[0] * math.radians(self.rotation)
        shear = ops.tan(random[1] * math.radians(self.shear))
        scale_x, scale_y = 1 + random[2] * self.zoom, 1 + random[3] * self.zoom
        cos, sin = ops.cos(angle), ops.sin(angle)
        # Output pixel (x, y) is input pixel (a x + b y + c, d x + e y + f): rotation × shear × scale about the centre.
        a, b = cos * scale_x, (cos * shear - sin) * scale_y
        d, e = sin * scale_x, (sin * shear + cos) * scale_y
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        c = centre_x - a * centre_x - b * centre_y + random[4] * self.shift * width
        f = centre_y - d * centre_x - e * centre_y + random[5] * self.shift * height
        if not self.distortion:
            zero = ops.zeros_like(a)
            matrix = ops.stack([a, b, c, d, e, f, zero, zero], axis=1)
            return ops.image.affine_transform(images, matrix, interpolation="bilinear", fill_mode="constant")
        a, b, c, d, e, f = (ops.reshape(value, (-1, 1, 1)) for value in (a, b, c, d, e, f))
        x, y = ops.arange(width, dtype="float32")[None, None], ops.arange(height, dtype="float32")[None, :, None]
        nodes = keras.random.uniform(
            (2, batch, GRID_CELLS + 1, GRID_CELLS + 1), -self.distortion, self.distortion, seed=self.random
        )
        displacement = ops.matmul(ops.matmul(_between_nodes(height), nodes), ops.transpose(_between_nodes(width)))
        return _sample(images, a * x + b * y + c + displacement[0], d * x + e * y + f + displacement[1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which Keras restores the layer."""
        names = ("rotation", "zoom", "shift", "shear", "distortion", "seed")
        config: dict[str, Any] = super().get_config()
        return config | {name: getattr(self, name) for name in names}


def _between_nodes(side: int) -> Any:
    """Return the weights of the grid's nodes at each pixel along a side: float32 (side, nodes)."""
    position = np.linspace(0, GRID_CELLS, side)[:, None]
    return ops.convert_to_tensor(np.maximum(0, 1 - np.abs(position - np.arange(GRID_CELLS + 1))), "float32")


def _sample(images: Any, x: Any, y: Any) -> Any:
    """Interpolate images bilinearly at columns ``x`` and rows ``y``, float32 (batch, height, width)."""
    batch, (height, width, channels) = ops.shape(images)[0], images.shape[1:]
    # Beyond a border of zeros every pixel is 0. A single index into all images is the fastest look-up.
    pixels = ops.reshape(ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))), (-1, channels))
    x, y = ops.clip(x + 1, 0, width + 0.999), ops.clip(y + 1, 0, height + 0.999)
    left, top = ops.floor(x), ops.floor(y)
    right_weight, bottom_weight = (ops.cast(part, images.dtype)[..., None] for part in (x - left, y - top))
    stride = width + 2
    first = ops.reshape(ops.arange(batch, dtype="int32") * (stride * (height + 2)), (-1, 1, 1))
    corner = first + ops.cast(top, "int32") * stride + ops.cast(left, "int32")

    def row(offset: int) -> Any:
        left_pixel, right_pixel = (ops.take(pixels, corner + offset + step, axis=0) for step in (0, 1))
        return left_pixel + (right_pixel - left_pixel) * right_weight

    upper, lower = row(0), row(stride)
    return upper + (lower - upper) * bottom_weight
