"""The report of a run."""

import base64
import csv
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from conftest import call, one_line
from digit_recognizer.data import dataset, splits
from digit_recognizer.errors import BadInput
from digit_recognizer.evaluation import report
from pages import DATA, PIXELS, RECIPE, browsing, content_of, needs_browser, serious_faults, wait_for_plots
from stored_runs import forget_digests, store_scored_run


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The folder of a run with three errors in each set of rows."""
    return store_scored_run(tmp_path, RECIPE, DATA, wrong=3)


def test_page_has_the_errors_with_their_neighbours(stored: Path) -> None:
    page = report.write_report(stored, DATA)
    text = page.read_text(encoding="utf-8")
    content = content_of(page)
    oof, holdout = np.load(stored / "oof.npy"), np.load(stored / "holdout.npy")
    split = splits.split(DATA.labels, folds=RECIPE.folds, members=RECIPE.members, holdout=RECIPE.holdout, seed=0)
    scored = np.flatnonzero(~np.isnan(oof[:, 0]))
    wrong = {int(row) for row in scored if oof[row].argmax() != DATA.labels[row]}
    wrong |= {
        int(row) for row, values in zip(split.holdout, holdout, strict=True) if values.argmax() != DATA.labels[row]
    }
    shown = [content["training"][error["image"]] for error in content["errors"]]
    assert {row for row, _ in shown} == wrong
    assert all(
        label == DATA.labels[row] == error["label"]
        for (row, label), error in zip(shown, content["errors"], strict=True)
    )
    assert all(len(set(error["near"]) - {error["image"]}) == 3 for error in content["errors"])
    assert len(content["figures"]["curves"]) == RECIPE.members
    assert (stored.parent / "plotly.min.js").stat().st_size > 1_000_000
    assert not re.search(r"(src|href)=\"(https?:)?//", text), "nothing is loaded from a network"
    assert not list(stored.glob(".report.*"))


def test_sheets_hold_the_images_with_16_levels(stored: Path) -> None:
    place = report.write_report(stored, DATA).parent
    training = content_of(place / "index.html")["training"]
    with Image.open(place / "training.png") as sheet:
        pixels = 255 - np.asarray(sheet.convert("L"))
    for index, (row, _) in enumerate(training):
        left = index % report.COLUMNS * 28
        top = index // report.COLUMNS * 28
        assert np.abs(pixels[top : top + 28, left : left + 28].astype(int) - PIXELS[row]).max() <= 8
    many = np.zeros((report.COLUMNS + 2, 28, 28), np.uint8)
    many[-1] = 255
    report.write_sheet(place / "many.png", many)
    with Image.open(place / "many.png") as sheet:
        assert sheet.size == (report.COLUMNS * 28, 56)
        assert np.asarray(sheet.convert("L"))[28:, 28:56].max() == 0


def test_predictions_are_packed_into_five_bytes() -> None:
    probabilities = np.array([[0.1, 0.7, 0.2, *[0] * 7], [0] * 9 + [1]], np.float32)
    packed = base64.b64decode(report.encode_predictions(probabilities))
    assert len(packed) == 10
    assert packed[0] == 0x12
    assert int.from_bytes(packed[1:3], "little") / 65_535 == pytest.approx(0.7, abs=1e-4)
    assert int.from_bytes(packed[3:5], "little") / 65_535 == pytest.approx(0.2, abs=1e-4)
    assert packed[5] >> 4 == 9


def test_nearest_images_are_those_of_a_plain_search() -> None:
    rows = np.array([0, 17, 399])
    found = report.nearest(PIXELS, rows, 3)
    for row, near in zip(rows, found, strict=True):
        distances = ((PIXELS.astype(float) - PIXELS[row]) ** 2).sum(axis=(1, 2))
        distances[row] = np.inf
        assert near.tolist() == distances.argsort()[:3].tolist()


def test_wrong_labels_are_suspected(tmp_path: Path) -> None:
    labels = np.arange(1000).astype(np.uint8) % 10
    probabilities = np.where(np.eye(10, dtype=bool)[labels], 0.91, 0.01).astype(np.float32)
    given = labels.copy()
    given[[5, 77]] = (given[[5, 77]] + 1) % 10
    found = report.find_suspects(given, probabilities)
    assert set(found) == {5, 77}
    report.write_suspects(tmp_path / "s.csv", found + 100, given[found], probabilities[found])
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["row"] for row in rows} == {"106", "178"}
    assert all(int(row["predicted"]) == (int(row["label"]) - 1) % 10 for row in rows)


def test_foreign_text_stays_text(stored: Path) -> None:
    about = json.loads((stored / "run.json").read_text())
    about["machine"]["processor"] = about["commit"] = "</script><script>alert(1)</script>"
    (stored / "run.json").write_text(json.dumps(about))
    text = report.write_report(stored, DATA).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def damage(folder: Path, name: str) -> None:
    if name == "other version":
        about = json.loads((folder / "run.json").read_text())
        about["identity"]["recipe"]["unknown"] = 1
        (folder / "run.json").write_text(json.dumps(about))
    elif name == "recipe of another type":
        about = json.loads((folder / "run.json").read_text())
        about["identity"]["recipe"]["network"] = 5
        (folder / "run.json").write_text(json.dumps(about))
    elif name in ("oof_distinct", "stages", "holdout_members"):
        scores = json.loads((folder / "scores.json").read_text())
        (folder / "scores.json").write_text(json.dumps(scores | {name: [{"errors": "1"}]}))
    elif name == "too large":
        array = np.load(folder / "oof.npy")
        array[np.flatnonzero(~np.isnan(array[:, 0]))[0], 3] = 1e30
        np.save(folder / "oof.npy", array)
        forget_digests(folder)
    elif name == "another test.npy":
        np.save(folder / "test.npy", np.eye(10, dtype=np.float32)[:5])
    elif name == "header":
        content = (folder / "test.npy").read_bytes()
        (folder / "test.npy").write_bytes(content.replace(b"'descr': ", b"'descr': ("))
    elif name == "unfinished":
        (folder / "scores.json").unlink()
    elif name == "short":
        np.save(folder / "test.npy", np.zeros((4, 10), np.float32))
        forget_digests(folder)
    elif name == "missing":
        shutil.rmtree(folder)
    else:
        (folder / name).write_bytes(b"damaged")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "run.json"),
        ("unfinished", "the run is incomplete"),
        ("run.json", "run.json"),
        ("scores.json", "scores.json"),
        ("oof.npy", "oof.npy: damaged"),
        ("another test.npy", "test.npy: damaged: content differs"),
        ("short", r"test.npy: expected float32 \(5, 10\)"),
        ("members/01/fold.npy", "fold.npy: damaged"),
        ("members/00/member.json", "member.json"),
        ("other version", "of another version"),
        ("recipe of another type", "recipe, network: expected a text"),
        ("oof_distinct", "scores.json: damaged"),
        ("stages", "scores.json: damaged"),
        ("holdout_members", "scores.json: damaged"),
        ("too large", "oof.npy: damaged: the probabilities of a row do not sum to 1"),
        ("header", "test.npy: damaged"),
    ],
)
def test_run_that_cannot_be_read_is_refused_and_nothing_is_written(name: str, message: str, stored: Path) -> None:
    damage(stored, name)
    with pytest.raises(BadInput, match=message):
        report.write_report(stored, DATA)
    assert not (stored / "report").exists()
    assert not list(stored.parent.glob("**/.report.*"))


def test_copies_of_a_member_are_ignored(stored: Path) -> None:
    for copy in ("00 (1)", "00-copy", "1"):
        shutil.copytree(stored / "members" / "00", stored / "members" / copy)
    run = report.read_run(stored, DATA)
    assert list(run.members) == list(range(RECIPE.members))


@pytest.mark.parametrize(
    ("sample", "exists", "given", "loaded"),
    [
        (False, True, None, "digits.zip"),
        (False, False, None, None),
        (False, True, "other.zip", "other.zip"),
        (True, True, None, None),
    ],
)
def test_data_are_loaded_from_where_the_run_read_them(
    sample: bool,
    exists: bool,
    given: str | None,
    loaded: str | None,
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    about = json.loads((stored / "run.json").read_text())
    about |= {"source": "digits.zip", "identity": about["identity"] | {"sample": sample}}
    (stored / "run.json").write_text(json.dumps(about))
    if exists:
        (tmp_path / "digits.zip").touch()
    calls = []
    monkeypatch.setattr(dataset, "load", lambda given, *, default, cache: calls.append((given, default.name)))
    report.load_data(stored, Path(given) if given else None, tmp_path)
    ((path, default),) = calls
    assert (path and path.name) == loaded
    assert default == ("no-data" if sample else "data")


def test_run_of_other_data_is_refused(stored: Path) -> None:
    with pytest.raises(BadInput, match="trained on other data"):
        report.write_report(stored, replace(DATA, fingerprint="1" * 16))


def test_verb_takes_the_newest_run_and_refuses_unknown_ones(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "load", lambda given, *, default, cache: DATA)
    done = call("report", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"report: runs/{stored.name}/report/index.html\n")
    done = call("report", "--run", "../../etc", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected a plain file name" in one_line(done.stderr)
    assert call("report", "--run", "quick-1", cwd=tmp_path).returncode == 2


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with 28,000 test images, with many probabilities and 40 errors in each set of rows."""
    home = tmp_path_factory.mktemp("large")
    digits = replace(DATA, test_images=np.tile(PIXELS // 4, (47, 1, 1))[:28_000])
    folder = store_scored_run(home, RECIPE, digits, wrong=40)
    probabilities = np.random.default_rng(1).dirichlet(np.full(10, 0.05), 28_000).astype(np.float32)
    np.save(folder / "test.npy", probabilities)
    forget_digests(folder)
    return report.write_report(folder, digits)


def shown(page: Page, where: str) -> list[str]:
    return page.locator(f"#{where} .prediction").all_inner_texts()


@pytest.mark.slow
@needs_browser
def test_page_opens_with_all_its_parts(large: Path) -> None:
    with browsing(large.as_uri()) as page:
        wait_for_plots(page, 3)
        errors = len(content_of(large)["errors"])
        assert page.inner_text("#error-count") == f"{errors} of {errors} errors"
        assert len(shown(page, "error-list")) == errors > 40
        assert page.inner_text("#test-count") == "28,000 images, page 1 of 234"
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        with Image.open(io.BytesIO(page.locator("#test-list canvas").first.screenshot())) as image:
            assert len(image.convert("L").getcolors() or ()) > 5, "the image is drawn"


@pytest.mark.slow
@needs_browser
def test_errors_are_filtered_and_sorted(large: Path) -> None:
    errors = content_of(large)["errors"]
    pairs = Counter((error["label"], int(np.argmax(error["probabilities"]))) for error in errors)
    with browsing(large.as_uri()) as page:
        for kind in ("holdout", "out-of-fold"):
            page.select_option("#error-controls [name=kind]", kind)
            expected = sum(error["kind"] == kind for error in errors)
            assert page.inner_text("#error-count") == f"{expected} of {len(errors)} errors"
        page.select_option("#error-controls [name=kind]", "")
        page.select_option("#error-controls [name=label]", "3")
        assert len(shown(page, "error-list")) == sum(count for (label, _), count in pairs.items() if label == 3)
        page.select_option("#error-controls [name=label]", "all")
        page.select_option("#error-controls [name=sort]", "pair")
        assert shown(page, "error-list") == sorted(shown(page, "error-list"))
        for sort, reverse in (("confident", True), ("unsure", False)):
            page.select_option("#error-controls [name=sort]", sort)
            texts = page.locator("#error-list li > p:nth-of-type(2)").all_inner_texts()
            confidences = [float(re.findall(r": ([\d.]+) %", text)[0]) for text in texts]
            assert confidences == sorted(confidences, reverse=reverse)


@pytest.mark.slow
@needs_browser
def test_a_cell_of_the_matrix_leads_to_its_errors(large: Path) -> None:
    with browsing(large.as_uri()) as page:
        cell = page.locator(".matrix a").first
        label, predicted = cell.get_attribute("data-label"), cell.get_attribute("data-predicted")
        count = int(cell.inner_text())
        cell.focus()
        page.keyboard.press("Enter")
        assert page.url.endswith("#errors")
        assert shown(page, "error-list") == [f"label {label}, predicted {predicted}"] * count


@pytest.mark.slow
@needs_browser
def test_test_images_are_filtered_and_paged(large: Path) -> None:
    probabilities = np.load(large.parents[1] / "test.npy")
    digits, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    ids = "#test-list li p:last-child"
    with browsing(large.as_uri()) as page:
        assert page.locator(ids).first.inner_text() == f"id {confidence.argmin() + 1}"
        page.select_option("#test-controls [name=sort]", "id")
        page.click("#next")
        assert page.locator(ids).all_inner_texts() == [f"id {number}" for number in range(121, 241)]
        assert page.inner_text("#test-count") == "28,000 images, page 2 of 234"
        page.click("#previous")
        assert page.is_disabled("#previous")
        page.select_option("#test-controls [name=digit]", "7")
        page.select_option("#test-controls [name=below]", "0.5")
        expected = np.flatnonzero((digits == 7) & (confidence < 0.5))
        assert page.inner_text("#test-count").startswith(f"{len(expected):,} images, page 1 of")
        assert page.locator(ids).first.inner_text() == f"id {expected[0] + 1}"
        assert {text[0] for text in shown(page, "test-list")} == {"7"}


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (400, True)])
def test_page_is_accessible_and_fits(width: int, dark: bool, large: Path) -> None:
    with browsing(large.as_uri(), width=width, dark=dark) as page:
        wait_for_plots(page, 3)
        assert serious_faults(page) == []
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the scores"


@pytest.mark.slow
@needs_browser
def test_foreign_text_stays_text_in_a_browser(tmp_path: Path) -> None:
    attack = "</script><img src=x onerror=\"document.title='attacked'\">"
    folder = store_scored_run(tmp_path, replace(RECIPE, name="a<b>c"), DATA, wrong=3)
    about = json.loads((folder / "run.json").read_text())
    about["machine"]["processor"] = about["commit"] = about["began"] = attack
    (folder / "run.json").write_text(json.dumps(about))
    with browsing(report.write_report(folder, DATA).as_uri()) as page:
        assert page.title() == folder.name
        assert page.locator("img").count() == 0
        assert attack in page.inner_text("dl")


@pytest.mark.slow
@needs_browser
def test_missing_plot_script_is_named(stored: Path) -> None:
    page_file = report.write_report(stored, DATA)
    (stored.parent / report.SCRIPT).unlink()
    with browsing(page_file.as_uri(), expected_error="ERR_FILE_NOT_FOUND") as page:
        page.wait_for_function("document.querySelector('.plot').textContent.includes('needs plotly.min.js')")
        assert page.inner_text("#test-count") == "5 images, page 1 of 1"
