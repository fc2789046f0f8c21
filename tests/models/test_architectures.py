"""Augmentation and networks do to images what they say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer.models import architectures, preprocessing
from digit_recognizer.models.augmentation import RandomAffine
from digit_recognizer.recipe import NETWORKS, PREPROCESSING
from digit_recognizer.training.backend import keras

NOTHING = {"rotation": 0.0, "zoom": 0.0, "shift": 0.0, "shear": 0.0}


def blob(batch: int = 64) -> np.ndarray:
    """Images of one smooth, lopsided blob: (batch, 28, 28, 1), 0 to 255."""
    y, x = np.mgrid[:28, :28]
    image = 255 * np.exp(-(((x - 15) / 5) ** 2) - ((y - 11) / 3) ** 2)
    return np.repeat(image[None, :, :, None].astype(np.float32), batch, axis=0)


def warped(batch: int = 64, seed: int = 0, **amounts: float) -> np.ndarray:
    layer = RandomAffine(**(NOTHING | amounts), seed=seed)
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


def test_images_pass_unchanged_outside_training_and_without_amounts() -> None:
    layer = RandomAffine(rotation=40, zoom=0.3, shift=0.2, shear=20, seed=0)
    np.testing.assert_array_equal(np.asarray(layer(blob(), training=False)), blob())
    np.testing.assert_allclose(warped(), blob(), atol=1e-3)


def test_each_image_gets_its_own_draw_and_the_seed_decides_it() -> None:
    one, same, other = warped(seed=1, shift=0.1), warped(seed=1, shift=0.1), warped(seed=2, shift=0.1)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert len(np.unique(middle(one).round(4), axis=0)) == len(one)


def test_shift_moves_the_centre_by_up_to_its_fraction_and_nothing_else() -> None:
    moved = middle(warped(500, shift=0.1)) - middle(blob(1))
    assert 0.9 * 2.8 < np.abs(moved).max() < 2.85
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.2, "down and right are drawn apart"


def test_rotation_turns_by_up_to_its_angle() -> None:
    covariance = spread(warped(500, rotation=30))
    angles = np.degrees(np.arctan2(2 * covariance[:, 0, 1], covariance[:, 0, 0] - covariance[:, 1, 1]) / 2)
    assert 28 < np.abs(angles).max() < 30.5
    assert angles.min() < -20 < 20 < angles.max()
    np.testing.assert_allclose(np.linalg.det(covariance), np.linalg.det(spread(blob(1)))[0], rtol=0.1)


def test_zoom_changes_width_and_height_apart() -> None:
    before, after = spread(blob(1)), spread(warped(500, zoom=0.2))
    width, height = (np.sqrt(after[:, i, i] / before[:, i, i]) for i in (0, 1))
    for scale in (1 / width, 1 / height):
        assert 0.78 < scale.min() < 0.83
        assert 1.17 < scale.max() < 1.23
    assert abs(np.corrcoef(width, height)[0, 1]) < 0.2


def test_shear_leans_and_keeps_the_area() -> None:
    after = spread(warped(500, shear=20))
    assert np.abs(after[:, 0, 1]).max() > 1
    np.testing.assert_allclose(np.linalg.det(after), np.linalg.det(spread(blob(1)))[0], rtol=0.1)


def test_the_layer_is_made_again_from_its_configuration() -> None:
    layer = RandomAffine(rotation=10, zoom=0.1, shift=0.1, shear=5, seed=3)
    again = RandomAffine.from_config(layer.get_config())
    np.testing.assert_array_equal(layer(blob(), training=True), again(blob(), training=True))


def test_a_digit_is_set_upright_and_keeps_its_mass_and_height() -> None:
    y, x = np.mgrid[:28, :28]
    strokes = [255.0 * (np.abs(x - 13.5 - lean * (y - 13.5)) < 2) * (np.abs(y - 13.5) < 9) for lean in (-0.6, 0, 0.4)]
    images = np.stack(strokes).astype(np.float32)[..., None]
    found = np.asarray(preprocessing.transform(images, "deskew"))
    np.testing.assert_allclose(spread(found)[:, 0, 1], 0, atol=0.3)
    assert np.abs(spread(images)[::2, 0, 1]).min() > 8
    np.testing.assert_allclose(middle(found), middle(images), atol=0.1)
    np.testing.assert_allclose(found.sum(axis=(2, 3)), images.sum(axis=(2, 3)), rtol=0.02)


@pytest.mark.parametrize("view", ["width", "deskew-width"])
def test_a_digit_is_as_wide_as_any_other_and_at_most_doubled(view: str) -> None:
    images = np.zeros((4, 28, 28, 1), np.float32)
    for image, width in zip(images, (2, 9, 15, 18), strict=True):
        image[5:20, 4 : 4 + width] = 200
    found = np.asarray(preprocessing.transform(images, view))
    widths = np.sqrt(spread(found)[:, 0, 0])
    assert found[0].sum() == pytest.approx(2 * images[0].sum(), rel=0.06), "no more than doubled"
    np.testing.assert_allclose(widths[1:], 4.5, rtol=0.05)
    np.testing.assert_allclose(middle(found)[:, 0], 13.5, atol=0.1)
    np.testing.assert_allclose(middle(found)[:, 1], middle(images)[:, 1], atol=0.1)


@pytest.mark.parametrize("view", PREPROCESSING)
def test_no_ink_stays_none_and_pixels_stay_in_range(view: str) -> None:
    images = np.concatenate([np.zeros((1, 28, 28, 1), np.float32), 255 * np.eye(28, dtype=np.float32)[None, ..., None]])
    found = np.asarray(preprocessing.transform(images, view) if view != "none" else images)
    assert not found[0].any()
    assert found.min() >= 0
    assert found.max() <= 255


def test_what_a_network_sees_comes_before_its_other_layers() -> None:
    network = architectures.build("slim-conv", dropout=0, preprocessing="deskew")
    view, rest = architectures.split_preprocessing(network)
    layered = np.asarray(view(blob(2)))
    np.testing.assert_allclose(layered, preprocessing.transform(blob(2), "deskew"), atol=1e-3)
    for layer in rest:
        layered = layer(layered)
    np.testing.assert_allclose(layered, network(blob(2)), rtol=1e-4, atol=1e-4)
    assert architectures.split_preprocessing(architectures.build("slim-conv", dropout=0))[0] is None


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_raw_pixels_and_gives_logits(name: str) -> None:
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
def test_the_size_of_a_network(name: str, weights: int, products: float) -> None:
    network = architectures.build(name, dropout=0.2)
    found = architectures.size(network)
    assert found[0] == weights
    assert found[1] / 1e6 == pytest.approx(products, abs=0.06)
    assert "logits (Dense)" in architectures.summary(network)
    assert "Param #" in architectures.summary(network)


@pytest.mark.slow
def test_every_network_once_saved_is_loaded_by_plain_keras_in_safe_mode(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", blob(3))
    logits = {}
    for name, view in [*((name, "none") for name in NETWORKS), *(("dense", view) for view in PREPROCESSING[1:])]:
        network = architectures.build(name, dropout=0.2, preprocessing=view)
        name = name if view == "none" else view
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


def test_a_recipe_can_name_every_network_there_is() -> None:
    assert set(architectures.BODIES) == set(NETWORKS)


@pytest.mark.slow
def test_start_up_talk_is_held_back_and_warnings_are_not() -> None:
    code = (
        "import os\nfrom digit_recognizer import backend\n"
        "with backend._chatter_held_back():\n"
        "    os.write(2, b'I0000 port.cc:153] oneDNN custom operations are on.\\nW0000 the disk is on fire\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stderr == "W0000 the disk is on fire\n"


@pytest.mark.parametrize("numbers", ["bfloat16", "float16"])
def test_half_precision_computes_much_the_same_with_weights_in_float32(numbers: str) -> None:
    keras.utils.set_random_seed(0)
    whole = architectures.build("slim-conv", dropout=0)
    half = architectures.build("slim-conv", dropout=0, precision=numbers)
    half.set_weights(whole.get_weights())
    images = 255 * np.random.default_rng(0).random((64, 28, 28, 1), np.float32)
    for training in (True, False):  # the batch's own means, then those so far
        expected, found = (np.asarray(network(images, training=training)) for network in (whole, half))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.1 * expected.std())
    for mine, its in zip(half.get_weights(), whole.get_weights(), strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, its, atol=0.02, rtol=0.05)  # the means have moved alike
    assert keras.config.dtype_policy().name == "float32"
