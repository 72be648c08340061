"""The record of a run: scalars and pictures to a CSV file, PNG files and Weights & Biases."""

import csv
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.image import save_image
from arbitrary_nst.runtime.files import ImageError, atomic_write

logger = logging.getLogger(__name__)

WandbMode = Literal["auto", "online", "offline", "off"]

BEGIN_WITHIN, FINISH_WITHIN = 60.0, 600.0
"""Seconds that a server may take to begin a run, and to receive the rest of one; what it misses stays on the disk."""


class Tracker:
    """Writes `metrics.csv` and `samples/` under the run's folder, and the same to Weights & Biases.

    A record is not worth a run: where it cannot be kept (no server, a full disk) a warning says so, once.

    Args:
        run_dir: the run's folder; the W&B run's id is kept there, so that a resumed run goes on in the same one.
        config: everything that the run was started with.
        mode: "auto" is what the environment says (WANDB_MODE, WANDB_DISABLED), and where it says nothing online where
            the user is logged in and offline otherwise; offline too where no server answers.
        project: of W&B; None: WANDB_PROJECT, or "arbitrary_nst" where it says nothing. The run is called as its folder
            is, unless WANDB_NAME says otherwise.
        step: where the run goes on: rows of later steps, which will be taken again, are removed. None: all are kept.
        silent: record nothing, as all processes of a run do but one.
    """

    def __init__(
        self,
        run_dir: Path,
        config: dict[str, Any],
        mode: WandbMode = "auto",
        project: str | None = None,
        step: int | None = None,
        silent: bool = False,
    ) -> None:
        self.run_dir, self._silent, self._lost, self._wandb = run_dir, silent, False, None
        if silent:
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        if step is not None:
            self.keep(lambda: _forget_after(step, run_dir))
        mode = _chosen_mode(mode)
        if mode != "off":
            project = project or os.environ.get("WANDB_PROJECT") or "arbitrary_nst"
            self._wandb = _start_wandb(run_dir, config, mode, project)

    def scalars(self, step: int, values: dict[str, float], section: str = "train") -> None:
        """One row of the section's CSV; the columns are those of the section's first row."""
        if self._silent:
            return
        row = {"step": str(step)} | {name: f"{value:.6g}" for name, value in values.items()}
        self.keep(lambda: _append(self.run_dir / f"{section}.csv", row))
        numbers = {f"{section}/{name}": value for name, value in values.items()}
        self._send(lambda run: run.log({"step": step, **numbers}))

    def image(self, step: int, name: str, image: Float[Tensor, "3 H W"], caption: str = "") -> None:
        """A picture in [0, 1]."""
        if self._silent:
            return
        path = self.run_dir / "samples" / f"{name}-{step:07d}.png"
        self.keep(lambda: save_image(image, path))

        def log(run: Any) -> None:
            import wandb

            run.log({"step": step, name: wandb.Image(str(path), caption=caption)})

        if path.exists():
            self._send(log)

    def model(self, path: Path, card: Path) -> None:
        """The finished model and its card, as an artifact."""

        def log(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(f"model-{run.id}", type="model", description=card.read_text(encoding="utf-8"))
            for file in (path, card):
                artifact.add_file(str(file))
            run.log_artifact(artifact)

        self._send(log)

    def close(self) -> None:
        """Send what is left; nothing is recorded after that."""
        self._send(lambda run: run.finish())
        self._wandb = None

    def keep(self, write: Callable[[], Any]) -> None:
        """Let `write` write a file of the record, if it can."""
        if self._silent:
            return
        try:
            write()
        except (OSError, ImageError) as error:
            if not self._lost:
                logger.warning("%s: a part of the record cannot be written (%s); the run goes on", self.run_dir, error)
            self._lost = True

    def _send(self, send: Callable[[Any], Any]) -> None:
        if self._wandb is None:
            return
        try:
            send(self._wandb)
        except Exception as error:  # whatever a foreign service makes of it
            logger.warning("Weights & Biases no longer records this run (%s); CSV and PNG files do", error)
            self._wandb = None


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that are whole; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and None not in row]


def _append(path: Path, row: dict[str, str]) -> None:
    with path.open("a+", newline="", encoding="utf-8") as file:
        file.seek(0)
        columns = next(csv.reader(file), None)
        writer = csv.DictWriter(file, columns or row, restval="", extrasaction="ignore")
        if columns is None:
            writer.writeheader()
        writer.writerow(row)


def _forget_after(step: int, run_dir: Path) -> None:
    """Write the CSV files anew without the rows after a step, and without a last one that was cut off."""
    for path in run_dir.glob("*.csv"):
        rows = [row for row in read_rows(path) if row.get("step", "").isdecimal() and int(row["step"]) <= step]
        if not rows:
            path.unlink()
            continue
        with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _chosen_mode(mode: WandbMode) -> WandbMode:
    """The mode that is asked for, or where that is open the environment's, as the wandb library reads it."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on"):
        return "off"
    modes: dict[str, WandbMode] = {"disabled": "off", "offline": "offline", "dryrun": "offline", "online": "online"}
    return modes.get(os.environ.get("WANDB_MODE", "").lower(), "auto")


def _start_wandb(
    run_dir: Path, config: dict[str, Any], mode: Literal["auto", "online", "offline"], project: str
) -> Any:
    """The run, new or gone on with; None where there can be none.

    Steps are a value of the record, not W&B's own counter, which cannot go back to the last checkpoint.
    """
    for attempt in ("offline",) if mode == "offline" else ("online", "offline"):
        try:
            import wandb

            if mode == "auto" and attempt == "online" and not wandb.login(prompt=False):
                continue
            identity = run_dir / "wandb_id"
            if not identity.exists():
                identity.write_text(uuid.uuid4().hex[:8])
            run = wandb.init(
                project=project,
                name=os.environ.get("WANDB_NAME") or run_dir.resolve().name,
                dir=str(run_dir),
                id=identity.read_text(),
                resume="allow",
                mode=attempt,
                config=config,
                settings=wandb.Settings(init_timeout=BEGIN_WITHIN, finish_timeout=FINISH_WITHIN),
            )
            run.define_metric("*", step_metric="step")
            return run
        except Exception as error:
            logger.warning("Weights & Biases does not record this run %s (%s)", attempt, error)
    return None
