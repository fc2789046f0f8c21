"""Augment training images by random affine transforms, drawn anew in each epoch."""

import math
from typing import Any

from digit_recognizer.training.backend import keras

ops = keras.ops


@keras.saving.register_keras_serializable("digit_recognizer")
class RandomAffine(keras.layers.Layer):
    """Rotate, scale, shift and shear each image of a batch about its centre by its own random amounts.

    The transforms of an image are multiplied into one matrix, so that one bilinear interpolation blurs it only once.
    Pixels outside the image are 0. Outside training, images pass unchanged.

    Input and output: float (batch, height, width, channels).

    Args:
        rotation: largest angle in degrees, in both directions.
        zoom: largest change of scale; height and width are drawn independently from [1 - zoom, 1 + zoom].
        shift: largest shift as a fraction of the side, in both directions, drawn independently for each axis.
        shear: largest angle between verticals and the vertical axis in degrees, in both directions.
        seed: seed of the layer's random numbers.
    """

    def __init__(self, *, rotation: float, zoom: float, shift: float, shear: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rotation, self.zoom, self.shift, self.shear, self.seed = rotation, zoom, shift, shear, seed
        self.random = keras.random.SeedGenerator(seed)

    @property
    def active(self) -> bool:
        """Whether the layer changes images at all."""
        return any((self.rotation, self.zoom, self.shift, self.shear))

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
        zero = ops.zeros_like(a)
        matrix = ops.stack([a, b, c, d, e, f, zero, zero], axis=1)
        return ops.image.affine_transform(images, matrix, interpolation="bilinear", fill_mode="constant")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which Keras restores the layer."""
        names = ("rotation", "zoom", "shift", "shear", "seed")
        config: dict[str, Any] = super().get_config()
        return config | {name: getattr(self, name) for name in names}
