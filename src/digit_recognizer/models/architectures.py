"""Build the networks by name: raw pixels → logits, uncompiled."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from digit_recognizer.models.preprocessing import transform
from digit_recognizer.training import backend
from digit_recognizer.training.backend import keras

layers = keras.layers
PREPROCESSING_LAYER = "preprocessing"


def bn_conv(dropout: float) -> list[Any]:
    """Return the layers of seven convolutions with strides instead of pooling; 327 k weights, 15 M multiply-adds.

    Source: C. Deotte, "25 Million Images! [0.99757] MNIST" (Kaggle, 2018). ReLU and then batch normalisation follow
    each convolution.
    """

    def convolution(filters: int, kernel: int, **kwargs: Any) -> list[Any]:
        return [
            layers.Conv2D(filters, kernel, activation="relu", kernel_initializer="he_normal", **kwargs),
            _batch_normalisation(),
        ]

    return [
        *convolution(32, 3),  # 26 × 26
        *convolution(32, 3),  # 24 × 24
        *convolution(32, 5, strides=2, padding="same"),  # 12 × 12
        layers.Dropout(dropout),
        *convolution(64, 3),  # 10 × 10
        *convolution(64, 3),  # 8 × 8
        *convolution(64, 5, strides=2, padding="same"),  # 4 × 4
        layers.Dropout(dropout),
        *convolution(128, 4),  # 1 × 1
        layers.Flatten(),
        layers.Dropout(dropout),
    ]


def slim_conv(dropout: float) -> list[Any]:
    """Return the layers of five convolutions with pooling; 276 k weights, 7 M multiply-adds.

    Batch normalisation follows the pooling, because its cost grows with the size of its input.
    """

    def convolution(filters: int, kernel: int, padding: str = "valid") -> Any:
        return layers.Conv2D(filters, kernel, padding=padding, activation="relu", kernel_initializer="he_normal")

    return [
        convolution(24, 5),  # 24 × 24
        layers.MaxPooling2D(),  # 12 × 12
        _batch_normalisation(),
        convolution(64, 3, "same"),
        convolution(64, 3),  # 10 × 10
        layers.MaxPooling2D(),  # 5 × 5
        _batch_normalisation(),
        layers.Dropout(dropout),
        convolution(128, 3),  # 3 × 3
        _batch_normalisation(),
        convolution(128, 3),  # 1 × 1
        _batch_normalisation(),
        layers.Flatten(),
        layers.Dropout(dropout),
    ]


def residual(dropout: float, filters: int) -> list[Any]:
    """Return the layers of a residual network of three stages with global average pooling.

    With 64, 128 and 256 filters: 1.2 M, 4.6 M and 18 M weights, 22 M, 87 M and 343 M multiply-adds. Each stage halves
    the side and doubles the filters. The blocks, and the lack of dense layers, are those of the network of
    github.com/ttdoucet/mnist. It has a further stage at 24 × 24, which takes as long and adds no accuracy here.

    Args:
        dropout: fraction dropped before the last layer.
        filters: of the first stage.
    """

    def convolution(filters: int, kernel: int, padding: str = "same") -> Any:
        return layers.Conv2D(filters, kernel, padding=padding, activation="relu", kernel_initializer="he_normal")

    def block(filters: int, side: int) -> Any:
        dtype = keras.config.dtype_policy().compute_dtype  # a float32 input would be a copy of a 16-bit one
        inputs = keras.Input((side, side, filters), dtype=dtype)
        outputs = layers.Add()([inputs, convolution(filters, 3)(_batch_normalisation()(inputs))])
        return keras.Model(inputs, outputs)

    return [
        convolution(filters, 5, "valid"),  # 24 × 24
        layers.MaxPooling2D(),  # 12 × 12
        block(filters, 12),
        layers.MaxPooling2D(),  # 6 × 6
        convolution(2 * filters, 3),
        block(2 * filters, 6),
        layers.MaxPooling2D(),  # 3 × 3
        convolution(4 * filters, 3),
        block(4 * filters, 3),
        _batch_normalisation(),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(dropout),
    ]


def adaptive_cnn(dropout: float) -> list[Any]:
    """Return the layers of two convolutions and a wide dense layer; 2.4 M weights, 7 M multiply-adds."""
    return [
        layers.Conv2D(32, 5, activation="relu"),  # 24 × 24
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),  # 12 × 12
        layers.Dropout(dropout),
        layers.Flatten(),
        layers.Dense(519, activation="relu"),
        layers.Dropout(0.5),
    ]


def three_conv(dropout: float) -> list[Any]:
    """Return the layers of three 3×3 convolutions with pooling and a dense layer; 897 k weights, 8 M multiply-adds."""
    return [
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),  # 14 × 14
        layers.Dropout(dropout),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),  # 7 × 7
        layers.Dropout(dropout),
        layers.Conv2D(128, 3, padding="same", activation="relu"),
        layers.Dropout(dropout),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(dropout),
    ]


def two_conv(dropout: float) -> list[Any]:
    """Return the layers of two wide 5×5 convolutions and a dense layer; 2.7 M weights, 54 M multiply-adds."""
    return [
        layers.Conv2D(100, 5, activation="relu"),  # 24 × 24
        layers.Conv2D(50, 5, activation="relu"),  # 20 × 20
        layers.Flatten(),
        layers.Dropout(dropout),
        layers.Dense(128, activation="relu"),
    ]


def conv_pool(dropout: float) -> list[Any]:
    """Return the layers of three convolutions with pooling and a dense layer; 391 k weights, 8 M multiply-adds."""
    return [
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),  # 14 × 14
        layers.Dropout(dropout),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),  # 7 × 7
        layers.Dropout(dropout),
        layers.Conv2D(128, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),  # 3 × 3
        layers.Dropout(dropout),
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
        layers.Dropout(dropout),
    ]


def dense(dropout: float) -> list[Any]:
    """Return three dense layers without convolutions; 253 k weights and multiply-adds."""
    return [
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
        layers.Dropout(dropout),
        layers.Dense(128, activation="relu"),
        layers.Dense(128, activation="relu"),
        layers.BatchNormalization(),
    ]


BODIES: dict[str, Callable[[float], list[Any]]] = {
    "bn-conv": bn_conv,
    "slim-conv": slim_conv,
    "residual-64": partial(residual, filters=64),
    "residual-128": partial(residual, filters=128),
    "residual-256": partial(residual, filters=256),
    "adaptive-cnn": adaptive_cnn,
    "three-conv": three_conv,
    "two-conv": two_conv,
    "conv-pool": conv_pool,
    "dense": dense,
}


def _batch_normalisation() -> Any:
    """Return batch normalisation with a low momentum, so that its moving means converge in short trainings."""
    if keras.config.dtype_policy().compute_dtype == "float32":
        return layers.BatchNormalization(momentum=0.9)
    return backend.BatchNormalization(momentum=0.9)


def build(name: str, *, dropout: float, preprocessing: str = "none", precision: str = "float32") -> Any:
    """Build an uncompiled network.

    Args:
        name: one of ``recipe.NETWORKS``.
        dropout: fraction of activations that each dropout layer drops, 0 to 1.
        preprocessing: one of ``recipe.PREPROCESSING``.
        precision: number format of the computation: float32, bfloat16 or float16; weights are always float32. A
            network in float32 has only Keras's own layers, so that it loads without this package.

    Returns:
        keras.Model: float (n, 28, 28, 1) raw pixels, 0 to 255 → float32 (n, 10) logits.
    """
    with backend.computing(precision):
        first, last = layers.Rescaling(1 / 255), layers.Dense(10, dtype="float32", name="logits")
        body = [first, *BODIES[name](dropout), last]
    if preprocessing != "none":
        image = keras.Input((28, 28, 1))
        body = [keras.Model(image, transform(image, preprocessing), name=PREPROCESSING_LAYER), *body]
    return keras.Sequential([keras.Input((28, 28, 1)), *body], name=name.replace("-", "_"))


def split_preprocessing(network: Any) -> tuple[Any, list[Any]]:
    """Return a network's preprocessing, a keras.Model or None, and the layers that follow it."""
    if network.layers[0].name == PREPROCESSING_LAYER:
        return network.layers[0], network.layers[1:]
    return None, network.layers


def size(network: Any) -> tuple[int, int]:
    """Return the number of weights of a network and its multiply-adds for one image."""
    multiply_adds = 0
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            multiply_adds += size(layer)[1]
        elif isinstance(layer, layers.Conv2D):
            multiply_adds += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, layers.Dense):
            multiply_adds += math.prod(layer.kernel.shape)
    return network.count_params(), multiply_adds


def summary(network: Any) -> str:
    """Return Keras's table of a network's layers as plain text."""
    lines: list[str] = []
    network.summary(line_length=78, print_fn=lambda line, **_: lines.append(line))
    return "\n".join(lines) + "\n"
