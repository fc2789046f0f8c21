"""Write the bundled sample: scikit-learn's digits in the competition's format."""

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from digit_recognizer import files
from digit_recognizer.data import csv_reader, sources
from digit_recognizer.errors import BadInput

SAMPLE_MARK = "SAMPLE.txt"


def write_sample(folder: Path) -> None:
    """Write scikit-learn's 1,797 digits of 8×8 pixels as ``train.csv`` and ``test.csv`` in the competition's format.

    The images are enlarged to 20×20 pixels and centred in 28×28, like the competition's images; every fifth one goes to
    the test file. They are E. Alpaydın and C. Kaynak's digits (UCI, 1998), and share none with the competition's.
    """
    note = "scikit-learn's bundled digits in the competition's form, for trying the kit; not the competition's files.\n"
    paths = {name: folder / f"{name}.csv" for name in csv_reader.COLUMNS}

    def mark() -> bytes:  # with checksums, so that damaged files are replaced
        return (note + "".join(f"{path.name} {sources.checksum(path)}\n" for path in paths.values())).encode()

    with suppress(OSError, BadInput):
        if (folder / SAMPLE_MARK).read_bytes() == mark():
            return
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = enlarge(digits.images).reshape(-1, csv_reader.SIDE * csv_reader.SIDE)
    in_test = np.arange(len(pixels)) % 5 == 4
    files.write_bytes(
        folder / SAMPLE_MARK, note.encode()
    )  # first, so that an interrupted sample is still marked as one
    for name, rows in (
        ("train", np.column_stack((digits.target, pixels))[~in_test]),
        ("test", pixels[in_test]),
    ):
        text = io.StringIO()
        text.write(",".join(csv_reader.COLUMNS[name]) + "\n")
        np.savetxt(text, rows, fmt="%d", delimiter=",")
        files.write_bytes(paths[name], text.getvalue().encode())
    files.write_bytes(folder / SAMPLE_MARK, mark())


def enlarge(images: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Enlarge images to 20×20 pixels, centred in 28×28.

    Args:
        images: float (n, 8, 8), 0 to 16.

    Returns:
        uint8 (n, 28, 28).
    """
    from scipy.ndimage import zoom

    large = zoom(images * (255 / 16), (1, 2.5, 2.5), order=3, grid_mode=True, mode="nearest")
    return np.pad(large.clip(0, 255).round().astype(np.uint8), ((0, 0), (4, 4), (4, 4)))
