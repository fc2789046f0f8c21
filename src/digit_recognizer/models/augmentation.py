"""Draw a fresh variant of each training image: one random affine warp, interpolated once."""

import math
from typing import Any

from digit_recognizer.training.backend import keras

ops = keras.ops


@keras.saving.register_keras_serializable("digit_recognizer")
class RandomAffine(keras.layers.Layer):
    """Rotate, zoom, shift and shear each image of a batch by its own random amounts, about its centre.

    The four are multiplied into one matrix for each image and the image is sampled once, bilinearly, so that four small
    changes blur it no more than one. Outside the image is 0. Only in training; otherwise images pass unchanged.

    Input and output: float (batch, height, width, channels).

    Args:
        rotation: largest angle, degrees, either way.
        zoom: largest change of height and, drawn apart, of width: the scale lies in [1 - zoom, 1 + zoom].
        shift: largest shift down and, drawn apart, to the right, as a fraction of the side, either way.
        shear: largest angle by which verticals lean, degrees, either way.
        seed: of the layer's own random stream.
    """

    def __init__(self, *, rotation: float, zoom: float, shift: float, shear: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rotation, self.zoom, self.shift, self.shear, self.seed = rotation, zoom, shift, shear, seed
        self.random = keras.random.SeedGenerator(seed)

    @property
    def moves(self) -> bool:
        """Whether it changes anything at all."""
        return any((self.rotation, self.zoom, self.shift, self.shear))

    def call(self, images: Any, training: bool = False) -> Any:
        """Warp the batch in training, else return it as it is."""
        if not training:
            return images
        batch, (height, width) = ops.shape(images)[0], images.shape[1:3]
        draw = keras.random.uniform((6, batch), -1, 1, seed=self.random)
        angle = draw[0] * math.radians(self.rotation)
        lean = ops.tan(draw[1] * math.radians(self.shear))
        scale_x, scale_y = 1 + draw[2] * self.zoom, 1 + draw[3] * self.zoom
        cos, sin = ops.cos(angle), ops.sin(angle)
        # Output (x, y) is read from input (a x + b y + c, d x + e y + f): rotation × shear × scale about the centre.
        a, b = cos * scale_x, (cos * lean - sin) * scale_y
        d, e = sin * scale_x, (sin * lean + cos) * scale_y
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        c = middle_x - a * middle_x - b * middle_y + draw[4] * self.shift * width
        f = middle_y - d * middle_x - e * middle_y + draw[5] * self.shift * height
        zero = ops.zeros_like(a)
        matrix = ops.stack([a, b, c, d, e, f, zero, zero], axis=1)
        return ops.image.affine_transform(images, matrix, interpolation="bilinear", fill_mode="constant")

    def get_config(self) -> dict[str, Any]:
        """What the layer can be made again from."""
        names = ("rotation", "zoom", "shift", "shear", "seed")
        config: dict[str, Any] = super().get_config()
        return config | {name: getattr(self, name) for name in names}
