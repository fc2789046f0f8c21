"""A page on this machine on which a drawn digit gets the probabilities of a run's blend."""

import importlib.util
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import provenance, runs
from digit_recognizer.ensemble import members
from digit_recognizer.ensemble.members import Probabilities
from digit_recognizer.errors import BadInput, KitError

SIDE, BOX = 28, 20  # pixels of an image, and of the square that contains its digit
CANVAS = 400  # pixels
BRUSH = 16  # pixels, the radius; a large digit then has strokes as wide as in the competition's images
ADDRESS = "127.0.0.1"
# Gradio's sketchpad has no tool selected at the start and after it was cleared.
SELECT_BRUSH = """() => {
  setInterval(() => {
    if (!document.querySelector("#drawing button.highlight"))
      document.querySelector('#drawing button[aria-label="Brush"]')?.click();
  }, 100);
}"""
ZOOM = 6  # pixels for each pixel of an image
INK = 16 / 255  # least opacity that counts as ink


def prepare_drawing(ink: npt.NDArray[np.floating], *, sample: bool = False) -> npt.NDArray[np.uint8] | None:
    """Scale and centre a drawing as the images of the data were.

    The longer side of a digit becomes 20 pixels, with antialiasing, and its centre of mass the image's centre, as in
    Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits" (1998). Digits of the bundled sample have
    8 pixels and are enlarged.

    Args:
        ink: float (height, width), 0 to 1.
        sample: whether to prepare it like the bundled sample, and not like the competition's images.

    Returns:
        uint8 (28, 28); None if there is no ink.
    """
    from PIL import Image

    from digit_recognizer.data import sample as bundled_sample

    rows, columns = (np.flatnonzero((ink > INK).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box, side = (8, 8) if sample else (BOX, SIDE)
    height, width = (max(1, round(box * length / max(digit.shape))) for length in digit.shape)
    drawn = Image.fromarray((255 * digit).round().astype(np.uint8))
    pixels = np.asarray(drawn.resize((width, height), Image.Resampling.BOX))
    top, left = (
        int(np.clip(round((side - 1) / 2 - _center_of_mass(pixels.sum(axis=1 - axis))), 0, side - pixels.shape[axis]))
        for axis in (0, 1)
    )
    image = np.zeros((side, side), np.uint8)
    image[top : top + height, left : left + width] = pixels
    return bundled_sample.enlarge(image[None] / 255 * 16)[0] if sample else image


def _center_of_mass(mass: npt.NDArray[np.integer]) -> float:
    return float((mass * np.arange(len(mass))).sum() / mass.sum())


class BlendNetworks:
    """The networks of a run's members.

    Attributes:
        networks: the networks.
        sample: whether they were trained on the bundled sample.

    Args:
        folder: the folder of a complete run.

    Raises:
        BadInput: the run is damaged or of another version.
    """

    def __init__(self, folder: Path) -> None:
        from digit_recognizer.training import trainer

        recipe = runs.stored_recipe(folder)
        self.sample = provenance.find_provenance(folder.parent.parent, folder.name).sample
        self.networks = [
            trainer.load_network(recipe.of_member(index), runs.member_folder(folder, index) / members.NETWORK)
            for index in runs.stored_members(folder)  # this checks their files
        ]

    def predict(self, image: npt.NDArray[np.uint8]) -> Probabilities:
        """Return the mean of the members' probabilities of one image: float32 (10,). There is no k-NN re-ranking."""
        from digit_recognizer.training import trainer

        return np.asarray(np.mean([trainer.predict(network, image[None])[0] for network in self.networks], axis=0))


def build_page(home: Path, first: Path) -> Any:
    """Return the page as Gradio's Blocks.

    Args:
        home: the folder of ``runs``.
        first: the folder of the run that is selected at the start.
    """
    import gradio

    loaded = {first.name: BlendNetworks(first)}

    def predict(run: str, drawing: dict[str, Any] | None) -> tuple[dict[str, float] | None, Any, str]:
        try:
            if run not in loaded:
                loaded[run] = BlendNetworks(runs.find_run(home, run))
        except BadInput as error:
            return None, None, f"Error: {error}"
        image = prepare_drawing(_ink(drawing), sample=loaded[run].sample)
        if image is None:
            return None, None, "Draw a digit."
        probabilities = loaded[run].predict(image)
        best = int(probabilities.argmax())
        shown = {str(digit): float(value) for digit, value in enumerate(probabilities)}
        return (
            shown,
            np.kron(255 - image, np.ones((ZOOM, ZOOM), np.uint8)),
            f"{best}, with a probability of {probabilities[best]:.1%}",
        )

    names = [folder.name for folder in runs.complete_folders(home)]
    with gradio.Blocks(title="Digit Recognizer", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gradio.Markdown("# Digit Recognizer\nThe probabilities are the mean of the run's networks.")
        with gradio.Row():
            with gradio.Column():
                run = gradio.Dropdown(names, value=first.name, label="Run")
                drawing = gradio.Sketchpad(
                    label="Draw a digit",
                    image_mode="RGBA",
                    format="png",
                    canvas_size=(CANVAS, CANVAS),
                    fixed_canvas=True,
                    layers=False,
                    transforms=(),
                    brush=gradio.Brush(default_size=BRUSH, colors=["#000000"], color_mode="fixed"),
                    elem_id="drawing",
                )
            with gradio.Column():
                answer = gradio.Textbox("Draw a digit.", label="Prediction", elem_id="prediction")
                image = gradio.Image(
                    label="Input of the networks", height=ZOOM * SIDE + 40, image_mode="L", format="png", buttons=[]
                )
                label = gradio.Label(num_top_classes=10, label="Probabilities")
        outputs = [label, image, answer]
        drawing.change(predict, [run, drawing], outputs, show_progress="hidden", trigger_mode="always_last")
        run.change(predict, [run, drawing], outputs, show_progress="hidden")
        page.load(None, js=SELECT_BRUSH)
    return page


def _ink(drawing: dict[str, Any] | None) -> npt.NDArray[np.float64]:
    """Return the opacity of a sketchpad's layers, 0 to 1; without a drawing one transparent pixel."""
    layers = [layer[..., 3] for layer in (drawing or {}).get("layers", []) if layer is not None]
    return np.max(layers, axis=0) / 255 if layers else np.zeros((1, 1))


def serve(home: Path, name: str | None, *, open_browser: bool) -> None:
    """Serve the page on loopback until the process is interrupted.

    Args:
        home: the folder of ``runs``.
        name: the run that is selected at the start; None for the newest complete one.
        open_browser: whether to open the page.

    Raises:
        BadInput: there is no such run, or it is damaged.
        KitError: Gradio is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise KitError(
            "gradio is not installed",
            hint="`make demo` installs it, and so does `pip install -r requirements/demo.txt`",
        )
    folder = runs.find_run(home, name)
    runs.check_complete(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    for variable in ("no_proxy", "NO_PROXY"):  # Gradio checks that it can reach its own page
        os.environ[variable] = ",".join(filter(None, [os.environ.get(variable), ADDRESS]))
    import gradio

    print(f"demo: loading runs/{folder.name}", flush=True)
    page = build_page(home, folder)
    _, address, _ = page.launch(
        server_name=ADDRESS,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=open_browser,
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),  # no fonts of a network
        footer_links=[],
    )
    print(f"demo: {address}\nhint: Ctrl-C ends it", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.close(verbose=False)
        print("\ndemo: ended")
