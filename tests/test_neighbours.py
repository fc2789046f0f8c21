"""What is near under small deformation, and what the nearest digits say, on the bundled sample's real digits."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer import data, ensemble, folds, neighbours, recipe, runs, score
from digit_recognizer.data import Data
from digit_recognizer.ensemble import Blend


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Data:
    home = tmp_path_factory.mktemp("neighbours")
    return data.read(None, default=home / "data", cache=home / "cache")


def undecided(labels: neighbours.Pixels, seed: int = 0) -> neighbours.Probabilities:
    """Half for each row's label and half for another digit."""
    other = (labels + np.random.default_rng(seed).integers(1, 10, len(labels))) % 10
    return np.asarray((np.eye(10)[labels] + np.eye(10)[other]) / 2, np.float32)


def told(probabilities: neighbours.Probabilities, *given: neighbours.Pixels, **how: float) -> dict[int, list[float]]:
    return {row: list(opinion) for row, opinion in neighbours.asked(probabilities, *given, **{"weight": 6, **how})}


def test_an_image_is_near_to_itself_and_to_itself_moved_as_far_as_pixels_may_be(digits: Data) -> None:
    image = np.pad(digits.images[0][4:-4, 4:-4], 4)
    moved = [np.roll(image, (down, right), (0, 1)) for down, right in ((0, 0), (1, -2), (2, 2), (4, 0))]
    same, near, as_far, further = neighbours.distances(image, np.array(moved))
    another = neighbours.distances(image, digits.images[digits.labels != digits.labels[0]]).min()
    assert same == near == as_far == 0
    assert further > 0
    assert another > 0


def test_distances_are_the_definition_s(digits: Data) -> None:
    """By loops over pixels, in another way than the kit's."""
    from scipy import ndimage

    image, other = digits.images[:2].astype(float) / 255
    here, there = (
        np.pad([ndimage.sobel(one, axis=axis, mode="constant") for axis in (0, 1)], ((0, 0), (6, 6), (6, 6)))
        for one in (image, other)
    )
    inside = np.zeros((40, 40), bool)
    inside[6:-6, 6:-6] = True
    total = 0.0
    for y in range(6, 34):
        for x in range(6, 34):
            apart = []
            for down in range(-2, 3):
                for right in range(-2, 3):
                    steps = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if inside[y + i, x + j]]
                    pairs = [(here[:, y + i, x + j], there[:, y + i + down, x + j + right]) for i, j in steps]
                    apart.append(sum(float(np.square(a - b).sum()) for a, b in pairs))
            total += min(apart)
    assert neighbours.distances(digits.images[0], digits.images[1:2])[0] == pytest.approx(total, rel=1e-4)


def test_the_nearest_decide_rightly_where_the_networks_cannot(digits: Data) -> None:
    images, labels, known, of_known = digits.images[:100], digits.labels[:100], digits.images[100:], digits.labels[100:]
    before = undecided(labels)
    after = told(before, images, known, of_known)
    assert sorted(after) == list(range(100))
    right = sum(int(np.argmax(after[row])) == labels[row] for row in after)
    assert right >= 95
    assert all(sum(opinion) == pytest.approx(1, abs=1e-5) for opinion in after.values())


def test_only_what_is_in_doubt_is_asked_and_only_about_the_digits_in_doubt(digits: Data) -> None:
    sure = np.full((3, 10), 0.001, np.float32)
    sure[:, 4] = 0.991
    sure[1, [4, 9]], sure[2, [4, 9]] = (0.9, 0.092), (0.5, 0.492)
    after = told(sure, digits.images[:3], digits.images[3:], digits.labels[3:])
    assert list(after) == [2, 1], "the most doubtful first"
    for row, opinion in after.items():
        others = [digit for digit in range(10) if digit not in (4, 9)]
        np.testing.assert_array_equal(np.array(opinion)[others], sure[row][others])
        assert opinion[4] + opinion[9] == pytest.approx(0.992, abs=1e-5)


def test_no_weight_changes_nothing_and_more_weight_more(digits: Data) -> None:
    before = undecided(digits.labels[:5])
    rest = (digits.images[:5], digits.images[5:], digits.labels[5:])
    none, little, much = (told(before, *rest, weight=weight) for weight in (0, 1, 10))
    for row in range(5):
        np.testing.assert_allclose(none[row], before[row], rtol=1e-6)
        assert 0.5 < max(little[row]) < max(much[row])


def test_one_mistaken_label_does_not_decide(digits: Data) -> None:
    image, label = digits.images[:1], digits.labels[:1]
    before = undecided(label)
    wrong = np.flatnonzero((before[0] > 0) & (np.arange(10) != label)).astype(np.uint8)
    known, labels = np.concatenate((image, digits.images[1:])), np.concatenate((wrong, digits.labels[1:]))
    assert np.argmax(told(before, image, known, labels)[0]) == label


def test_nothing_is_begun_after_the_deadline(digits: Data) -> None:
    before = undecided(digits.labels[:5])
    assert told(before, digits.images[:5], digits.images[5:], digits.labels[5:], deadline=time.monotonic() - 1) == {}


def test_the_holdout_is_judged_without_its_own_labels(
    digits: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = recipe.named("quick").changed(neighbours=6)
    split = folds.split(digits.labels, folds=one.folds, members=1, holdout=one.holdout, seed=0)
    held = digits.labels[split.holdout]
    nobody = np.zeros((1, len(held)), np.intp)
    test = undecided(np.zeros(len(digits.test_images), np.uint8))
    blend = Blend(undecided(digits.labels), undecided(held), nobody, test, (), [])
    run = runs.begin(tmp_path, one, digits)
    after = ensemble.with_neighbours(blend, one, digits, split, run)
    shown = capsys.readouterr().out
    wrong = [score.errors(held, probabilities) for probabilities in (blend.holdout, after.holdout)]
    assert wrong[1] < 0.1 * len(held) < wrong[0]
    assert f"; holdout {wrong[0]} wrong before, {wrong[1]} after\n" in shown
    np.testing.assert_array_equal(np.load(run.folder / "holdout.npy"), after.holdout)
    np.testing.assert_array_equal(np.load(run.folder / "test.npy"), after.test)

    labels = digits.labels.copy()
    labels[split.holdout] = (held + 1) % 10
    again = ensemble.with_neighbours(blend, one, replace(digits, labels=labels), split, run)
    np.testing.assert_array_equal(again.holdout, after.holdout)
    np.testing.assert_array_equal(again.test, after.test)


def test_without_weight_the_blend_stays(digits: Data, tmp_path: Path) -> None:
    one = recipe.named("quick")
    split = folds.split(digits.labels, folds=one.folds, members=1, holdout=one.holdout, seed=0)
    nothing = np.empty((0, 10), np.float32)
    blend = Blend(nothing, nothing, np.empty((0, 0), np.intp), nothing, (), [])
    assert ensemble.with_neighbours(blend, one, digits, split, runs.begin(tmp_path, one, digits)) is blend
