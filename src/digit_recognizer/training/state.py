"""The state of a training at the end of an epoch, from which another process continues as if it had never stopped."""

import io
import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from digit_recognizer.recipe import Recipe
from digit_recognizer.training.callbacks import FoldCheckpoint, Plateau


@dataclass
class Training:
    """The objects that change while a member is trained.

    Attributes:
        recipe: the recipe of the member.
        owner: digest of the run and member; a state belongs to one owner and recipe.
        trainer: the compiled model.
        checkpoint: the callback that keeps the best network.
        plateau: the callback that lowers the learning rate; None for the other schedules.
        random: source of the rows' order.
        history: metric → value per epoch.
        seconds: time spent by earlier processes.
    """

    recipe: Recipe
    owner: str
    trainer: Any
    checkpoint: FoldCheckpoint
    plateau: Plateau | None
    random: np.random.Generator
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._began = time.monotonic()

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return len(self.history.get("loss", ()))

    def capture(self) -> bytes:
        """Return the state as the content of an ``.npz`` file, whose parts have checksums; nothing in it is pickled."""
        about = {
            "owner": self.owner,
            "recipe": asdict(self.recipe),
            "history": self.history,
            "seconds": self.seconds + time.monotonic() - self._began,
            "best": self.checkpoint.best,
            "plateau": self.plateau and self.plateau.state(),
            "random": self.random.bit_generator.state,
        }
        path = self.checkpoint.path
        texts = {"about": json.dumps(about).encode(), "checkpoint": path.read_bytes() if path.exists() else b""}
        arrays: dict[str, Any] = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
        arrays |= {f"variable-{index}": np.asarray(variable) for index, variable in enumerate(self._variables())}
        content = io.BytesIO()
        np.savez(content, **arrays)
        return content.getvalue()

    def restore(self, content: bytes | None) -> bool:
        """Continue from a state that ``capture`` returned.

        Returns:
            False, and nothing is changed, for None, a damaged state, and one of another owner or recipe.
        """
        variables = self._variables()
        try:
            with np.load(io.BytesIO(content or b""), allow_pickle=False) as arrays:
                about, checkpoint = json.loads(arrays["about"].tobytes()), arrays["checkpoint"].tobytes()
                values = [arrays[f"variable-{index}"] for index in range(len(variables))]
        except Exception:  # zipfile and NumPy raise errors of many types for a damaged archive
            return False
        if (about["owner"], about["recipe"]) != (self.owner, asdict(self.recipe)):
            return False
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        if checkpoint:
            self.checkpoint.path.write_bytes(checkpoint)
        self.checkpoint.best = about["best"]
        self.checkpoint.copy_weights()
        if self.plateau:
            self.plateau.resume(about["plateau"])
        self.random.bit_generator.state = about["random"]
        self.history |= about["history"]
        self.seconds = about["seconds"]
        return True

    def _variables(self) -> list[Any]:
        """Return all variables, those of random generators included, without the images, which never change."""
        return [
            variable
            for variable in (*self.trainer.variables, *self.trainer.optimizer.variables)
            if variable.dtype != "uint8"
        ]
