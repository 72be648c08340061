"""The record of a run: scalars and pictures to a CSV file, PNG files and Weights & Biases."""

import csv
import logging
import uuid
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.image import save_image

logger = logging.getLogger(__name__)

WandbMode = Literal["auto", "online", "offline", "off"]


class Tracker:
    """Writes `metrics.csv` and `samples/` under the run's folder, and the same to Weights & Biases.

    Args:
        run_dir: the run's folder; the W&B run's id is kept there, so that a resumed run goes on in the same one.
        config: everything that the run was started with.
        mode: "auto" is online where the user is logged in and offline otherwise.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any], mode: WandbMode = "auto", project: str = "arbitrary_nst"):
        self.run_dir = run_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        self._wandb = None if mode == "off" else _start_wandb(run_dir, config, mode, project)

    def scalars(self, step: int, values: dict[str, float], section: str = "train") -> None:
        """One row of the section's CSV; the columns are those of the section's first row."""
        path = self.run_dir / f"{section}.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, ["step", *values])
            if new:
                writer.writeheader()
            writer.writerow({"step": step} | {name: f"{value:.6g}" for name, value in values.items()})
        if self._wandb is not None:
            self._wandb.log({f"{section}/{name}": value for name, value in values.items()}, step=step)

    def image(self, step: int, name: str, image: Float[Tensor, "3 H W"], caption: str = "") -> None:
        """A picture in [0, 1]."""
        path = self.run_dir / "samples" / f"{name}-{step:07d}.png"
        save_image(image, path)
        if self._wandb is not None:
            import wandb

            self._wandb.log({name: wandb.Image(str(path), caption=caption)}, step=step)

    def close(self) -> None:
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(
    run_dir: Path, config: dict[str, Any], mode: Literal["auto", "online", "offline"], project: str
) -> Any:
    try:
        import wandb

        if mode == "auto":
            mode = "online" if wandb.login(prompt=False) else "offline"
        identity = run_dir / "wandb_id"
        if not identity.exists():
            identity.write_text(uuid.uuid4().hex[:8])
        return wandb.init(
            project=project, dir=str(run_dir), id=identity.read_text(), resume="allow", mode=mode, config=config
        )
    except Exception as error:  # a record is not worth a training run
        logger.warning("Weights & Biases is not recording this run (%s); CSV and PNG files are", error)
        return None
