"""Augmentation, preprocessing and the networks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer.models import architectures, preprocessing
from digit_recognizer.models.augmentation import RandomWarp
from digit_recognizer.recipe import NETWORKS, PREPROCESSING
from digit_recognizer.training.backend import keras

NOTHING = {"rotation": 0.0, "zoom": 0.0, "shift": 0.0, "shear": 0.0, "distortion": 0.0}


def blob(batch: int = 64) -> np.ndarray:
    """Images of one smooth, lopsided blob: (batch, 28, 28, 1), 0 to 255."""
    y, x = np.mgrid[:28, :28]
    image = 255 * np.exp(-(((x - 15) / 5) ** 2) - ((y - 11) / 3) ** 2)
    return np.repeat(image[None, :, :, None].astype(np.float32), batch, axis=0)


def warped(batch: int = 64, seed: int = 0, **amounts: float) -> np.ndarray:
    layer = RandomWarp(**(NOTHING | amounts), seed=seed)
    return np.asarray(layer(blob(batch), training=True))


def middle(images: np.ndarray) -> np.ndarray:
    """Centres of mass, (n, 2): x, y."""
    y, x = np.mgrid[:28, :28]
    mass = images[..., 0] / images[..., 0].sum(axis=(1, 2), keepdims=True)
    return np.stack([(mass * x).sum(axis=(1, 2)), (mass * y).sum(axis=(1, 2))], axis=1)


def spread(images: np.ndarray) -> np.ndarray:
    """Covariances of the mass, (n, 2, 2)."""
    y, x = np.mgrid[:28, :28]
    mass = images[..., 0] / images[..., 0].sum(axis=(1, 2), keepdims=True)
    dx, dy = x - middle(images)[:, 0, None, None], y - middle(images)[:, 1, None, None]
    moments = [(mass * a * b).sum(axis=(1, 2)) for a in (dx, dy) for b in (dx, dy)]
    return np.stack(moments, axis=1).reshape(-1, 2, 2)


def test_images_are_unchanged_outside_training() -> None:
    layer = RandomWarp(rotation=40, zoom=0.3, shift=0.2, shear=20, distortion=2, seed=0)
    np.testing.assert_array_equal(np.asarray(layer(blob(), training=False)), blob())
    np.testing.assert_allclose(warped(), blob(), atol=1e-3)


def test_each_image_is_transformed_by_its_own_amounts() -> None:
    one, same, other = warped(seed=1, shift=0.1), warped(seed=1, shift=0.1), warped(seed=2, shift=0.1)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert len(np.unique(middle(one).round(4), axis=0)) == len(one)


def test_shift_moves_the_centre_by_up_to_its_fraction() -> None:
    moved = middle(warped(500, shift=0.1)) - middle(blob(1))
    assert 0.9 * 2.8 < np.abs(moved).max() < 2.85
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.2, "down and right are drawn apart"


def test_rotation_turns_by_up_to_its_angle() -> None:
    covariance = spread(warped(500, rotation=30))
    angles = np.degrees(np.arctan2(2 * covariance[:, 0, 1], covariance[:, 0, 0] - covariance[:, 1, 1]) / 2)
    assert 28 < np.abs(angles).max() < 30.5
    assert angles.min() < -20 < 20 < angles.max()
    np.testing.assert_allclose(np.linalg.det(covariance), np.linalg.det(spread(blob(1)))[0], rtol=0.1)


def test_both_ways_to_sample_are_the_same_transform() -> None:
    amounts = {"rotation": 30, "zoom": 0.2, "shift": 0.2, "shear": 10}
    np.testing.assert_allclose(warped(**amounts, distortion=1e-6), warped(**amounts), atol=0.01)


def test_distortion_displaces_parts_of_an_image_by_up_to_its_pixels() -> None:
    y, x = np.mgrid[:28, :28].astype(np.float32)
    ramp = np.repeat(np.stack([x, y])[..., None], 100, axis=0)  # the value of a pixel is its own column, or row
    layer = RandomWarp(**(NOTHING | {"distortion": 2}), seed=0)
    displaced = (np.asarray(layer(ramp, training=True)) - ramp)[:, 3:-3, 3:-3]
    assert 1.8 < np.abs(displaced).max() <= 2.001
    assert np.std(displaced, axis=(1, 2)).min() > 0.1, "not a shift of the whole image"
    assert np.abs(np.diff(displaced, axis=1)).max() < 2 * 2 / 6.75 + 0.01, "smooth between the nodes of the grid"


def test_zoom_scales_width_and_height_independently() -> None:
    before, after = spread(blob(1)), spread(warped(500, zoom=0.2))
    width, height = (np.sqrt(after[:, i, i] / before[:, i, i]) for i in (0, 1))
    for scale in (1 / width, 1 / height):
        assert 0.78 < scale.min() < 0.83
        assert 1.17 < scale.max() < 1.23
    assert abs(np.corrcoef(width, height)[0, 1]) < 0.2


def test_shear_keeps_the_area() -> None:
    after = spread(warped(500, shear=20))
    assert np.abs(after[:, 0, 1]).max() > 1
    np.testing.assert_allclose(np.linalg.det(after), np.linalg.det(spread(blob(1)))[0], rtol=0.1)


def test_layer_is_restored_from_its_configuration() -> None:
    layer = RandomWarp(rotation=10, zoom=0.1, shift=0.1, shear=5, distortion=1, seed=3)
    again = RandomWarp.from_config(layer.get_config())
    np.testing.assert_array_equal(layer(blob(), training=True), again(blob(), training=True))


def test_deskew_removes_the_slant_and_keeps_mass_and_height() -> None:
    y, x = np.mgrid[:28, :28]
    strokes = [255.0 * (np.abs(x - 13.5 - lean * (y - 13.5)) < 2) * (np.abs(y - 13.5) < 9) for lean in (-0.6, 0, 0.4)]
    images = np.stack(strokes).astype(np.float32)[..., None]
    result = np.asarray(preprocessing.transform(images, "deskew"))
    np.testing.assert_allclose(spread(result)[:, 0, 1], 0, atol=0.3)
    assert np.abs(spread(images)[::2, 0, 1]).min() > 8
    np.testing.assert_allclose(middle(result), middle(images), atol=0.1)
    np.testing.assert_allclose(result.sum(axis=(2, 3)), images.sum(axis=(2, 3)), rtol=0.02)


@pytest.mark.parametrize("preprocessing_name", ["width", "deskew-width"])
def test_width_is_normalised_by_a_factor_of_at_most_two(preprocessing_name: str) -> None:
    images = np.zeros((4, 28, 28, 1), np.float32)
    for image, width in zip(images, (2, 9, 15, 18), strict=True):
        image[5:20, 4 : 4 + width] = 200
    result = np.asarray(preprocessing.transform(images, preprocessing_name))
    widths = np.sqrt(spread(result)[:, 0, 0])
    assert result[0].sum() == pytest.approx(2 * images[0].sum(), rel=0.06), "no more than doubled"
    np.testing.assert_allclose(widths[1:], 4.5, rtol=0.05)
    np.testing.assert_allclose(middle(result)[:, 0], 13.5, atol=0.1)
    np.testing.assert_allclose(middle(result)[:, 1], middle(images)[:, 1], atol=0.1)


def test_enlargement_magnifies_about_the_centre() -> None:
    result = np.asarray(preprocessing.transform(blob(1), "enlarge"))
    np.testing.assert_allclose(middle(result) - 13.5, 1.12 * (middle(blob(1)) - 13.5), atol=0.01)
    np.testing.assert_allclose(spread(result), 1.12**2 * spread(blob(1)), rtol=0.02, atol=1e-3)
    both = np.asarray(preprocessing.transform(blob(1), "deskew-enlarge"))
    after = preprocessing.transform(np.asarray(preprocessing.transform(blob(1), "deskew")), "enlarge")
    np.testing.assert_allclose(both, np.asarray(after), atol=0.1)  # clipped in between


@pytest.mark.parametrize("preprocessing_name", PREPROCESSING)
def test_blank_image_stays_blank_and_pixels_stay_in_range(preprocessing_name: str) -> None:
    images = np.concatenate([np.zeros((1, 28, 28, 1), np.float32), 255 * np.eye(28, dtype=np.float32)[None, ..., None]])
    result = np.asarray(preprocessing.transform(images, preprocessing_name) if preprocessing_name != "none" else images)
    assert not result[0].any()
    assert result.min() >= 0
    assert result.max() <= 255


def test_preprocessing_is_split_from_the_other_layers() -> None:
    network = architectures.build("slim-conv", dropout=0, preprocessing="deskew")
    preprocessing_model, rest = architectures.split_preprocessing(network)
    layered = np.asarray(preprocessing_model(blob(2)))
    np.testing.assert_allclose(layered, preprocessing.transform(blob(2), "deskew"), atol=1e-3)
    for layer in rest:
        layered = layer(layered)
    np.testing.assert_allclose(layered, network(blob(2)), rtol=1e-4, atol=1e-4)
    assert architectures.split_preprocessing(architectures.build("slim-conv", dropout=0))[0] is None


@pytest.mark.parametrize("name", NETWORKS)
def test_network_returns_logits_for_raw_pixels(name: str) -> None:
    keras.utils.set_random_seed(0)
    network = architectures.build(name, dropout=0.2)
    logits = np.asarray(network(blob(3)))
    assert logits.shape == (3, 10)
    assert np.isfinite(logits).all()
    assert (logits < 0).any()
    assert not network.compiled


@pytest.mark.parametrize(
    ("name", "weights", "products"),
    [
        ("bn-conv", 327_242, 15.16),
        ("slim-conv", 275_546, 6.84),
        # Each by hand: kernel × kernel × channels in × out (+ biases), times the pixels for the multiplications.
        ("adaptive-cnn", 832 + 9_248 + 2_392_071 + 5_200, (800 + 9_216) * 576 / 1e6 + 2.397),
        ("two-conv", 2_600 + 125_050 + 2_560_128 + 1_290, (2_500 * 576 + 125_000 * 400) / 1e6 + 2.561),
        ("dense", 200_960 + 32_896 + 16_512 + 512 + 1_290, 0.251),
    ],
)
def test_network_size(name: str, weights: int, products: float) -> None:
    network = architectures.build(name, dropout=0.2)
    result = architectures.size(network)
    assert result[0] == weights
    assert result[1] / 1e6 == pytest.approx(products, abs=0.06)
    assert "logits (Dense)" in architectures.summary(network)
    assert "Param #" in architectures.summary(network)


@pytest.mark.slow
def test_saved_networks_load_in_keras_without_this_package(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", blob(3))
    logits = {}
    for name, preprocessing_name in [
        *((name, "none") for name in NETWORKS),
        *(("dense", name) for name in PREPROCESSING[1:]),
    ]:
        network = architectures.build(name, dropout=0.2, preprocessing=preprocessing_name)
        name = name if preprocessing_name == "none" else preprocessing_name
        network.save(tmp_path / f"{name}.keras")
        logits[name] = np.asarray(network(blob(3)))
    code = (
        "import glob, sys, numpy, keras\n"
        "for path in glob.glob('*.keras'):\n"
        "    network = keras.models.load_model(path, safe_mode=True)\n"
        "    numpy.save(path + '.npy', network(numpy.load('images.npy')))\n"
        "assert not any(module.startswith('digit_recognizer') for module in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name, expected in logits.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.keras.npy"), expected, rtol=1e-4, atol=1e-4)


def test_recipes_list_every_network() -> None:
    assert set(architectures.BODIES) == set(NETWORKS)


@pytest.mark.slow
def test_startup_messages_are_hidden_and_warnings_shown() -> None:
    code = (
        "import os\nfrom digit_recognizer.training import backend\n"
        "with backend._without_startup_messages():\n"
        "    os.write(2, b'I0000 port.cc:153] oneDNN custom operations are on.\\nW0000 the disk is on fire\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stderr == "W0000 the disk is on fire\n"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bit_precision_is_close_to_float32_with_float32_weights(precision: str) -> None:
    keras.utils.set_random_seed(0)
    whole = architectures.build("slim-conv", dropout=0)
    half = architectures.build("slim-conv", dropout=0, precision=precision)
    half.set_weights(whole.get_weights())
    images = 255 * np.random.default_rng(0).random((64, 28, 28, 1), np.float32)
    for training in (True, False):  # the batch's own means, then those so far
        expected, result = (np.asarray(network(images, training=training)) for network in (whole, half))
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=0.1 * expected.std())
    for half_weights, weights in zip(half.get_weights(), whole.get_weights(), strict=True):
        assert half_weights.dtype == np.float32
        np.testing.assert_allclose(half_weights, weights, atol=0.02, rtol=0.05)  # the means have moved alike
    assert keras.config.dtype_policy().name == "float32"
