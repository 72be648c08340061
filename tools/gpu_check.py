"""A borrowed GPU, used to the full for a few minutes: train, check and measure, with one command and no network.

    python tools/gpu_check.py --minutes 9 --output out [--data data] [--weights light]

Three stages, the most valuable first, each a process of its own, so that a failure costs only itself, and each ended
when its time is over: `gpu_train.py` goes on training from the given weights for all but four minutes, `gpu_correct.py`
compares the GPU with the processor, `gpu_fast.py` times the model. The output holds at most eight files of less than
16 MiB: `report.json`, `report.md`, `log.txt`, and what training leaves. `report.*` are written after every stage.

What `gpu_pack.py` packed is found by itself: wheels of missing packages, pictures and weights.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent

REST = 240.0
"""Seconds for all but training, or a share of shorter budgets."""
REST_SHARE = 0.45

CORRECT_SHARE = 0.4
"""Of the rest, what the comparisons may take."""

GRACE = {"train": 25.0, "correct": 5.0, "fast": 2.0}
"""Seconds that a stage has, after its time is over, to write what it has; then it is killed."""

FINISH = 8.0
"""Seconds at the end for the report."""

STAGES = ("train", "correct", "fast")

KEPT = ("model.safetensors", "checkpoint.pt.*", "sheet.jpg")
"""What comes back of a stage's folder beside its record."""


def deadlines(minutes: float, stages: Sequence[str], now: float) -> dict[str, float]:
    """When each stage must stop its work, in seconds since 1970, its grace coming after that."""
    end = now + 60 * minutes - FINISH
    rest = min(REST, REST_SHARE * 60 * minutes)
    begin = end - rest if "train" in stages else now
    ends = {
        "train": end if stages == ["train"] else begin,
        "correct": begin + CORRECT_SHARE * (end - begin) if "fast" in stages else end,
        "fast": end,
    }
    return {stage: ends[stage] - min(GRACE[stage], (end - now) / 5) for stage in stages}


def unpacked(wheels: Path, site: Path) -> list[str]:
    """Folders for PYTHONPATH: the code, and the packages that travelled as wheels where they are missing here."""
    for wheel in sorted(wheels.glob("*.whl")):
        if find_spec(wheel.name.partition("-")[0]) is None:
            try:
                with ZipFile(wheel) as archive:
                    archive.extractall(site)
            except (BadZipFile, OSError) as error:  # what needs the package says so in the log
                print(f"warning: {wheel}: {error}", file=sys.stderr)
    return [str(ROOT), str(TOOLS), str(site)]


def run_stage(stage: str, command: list[str], until: float, log: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run a stage to its end, or end it. Returns how that went."""
    began = time.time()
    with log.open("ab") as file:
        file.write(f"== {stage}, until {until - began:.0f} seconds from now: {' '.join(command)}\n".encode())
        file.flush()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            code = process.wait(max(1.0, until + GRACE[stage] - began))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "killed: its time was over"
    return {"exit": code, "seconds": time.time() - began}


def read(path: Path) -> Any:
    """A record that a stage wrote; None where there is none, or half of one."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def machine(environment: dict[str, str]) -> Any:
    """Versions, card and commit."""
    code = (
        "import json, torch; from arbitrary_nst.runtime.provenance import versions; "
        "from arbitrary_nst.runtime.devices import chosen_device; "
        "d = chosen_device(); print(json.dumps(versions(d) | {'cuda': torch.version.cuda}))"
    )
    command = [sys.executable, "-c", code]
    try:
        run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
        return json.loads(run.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        return {"error": f"{error} {getattr(error, 'stderr', '')}"[-500:]}


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    machine = (report.get("machine") or {}) | {"packed": report.get("packed")}
    lines = ["# GPU check", "", *(f"- {name}: {value}" for name, value in machine.items()), "", "## Stages", ""]
    lines += ["| stage | exit | seconds |", "|---|---|---|"]
    lines += [f"| {name} | {of['exit']} | {of['seconds']:.0f} |" for name, of in report["stages"].items()]
    lines += [f"| all of {report['minutes']:g} minutes | | {report.get('total_seconds', 0.0):.0f} |"]
    train, rows = report.get("train") or {}, report.get("fast") or []
    limit = next((row["tflops"] for row in rows if "tflops" in row), None)
    if train:
        lines += ["", "## Training", "", "| what | value |", "|---|---|"]
        lines += [
            f"| {name} | {_short(value)} |" for name, value in train.items() if isinstance(value, (int, float, str))
        ]
        if limit and "tflops" in train:
            lines += [f"| share of the matrix-product limit | {train['tflops'] / limit:.3f} |"]
        seen = train.get("validation") or []
        if seen:
            names = ("step", "loss", "style_gap", "gram_gap", "content_drift", "objective")
            lines += ["", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
            lines += [f"| {' | '.join(_short(row.get(name)) for name in names)} |" for row in seen]
    if report.get("correct"):
        lines += ["", "## Correctness", "", "| case | passed | largest | mean in 1/255 | |", "|---" * 5 + "|"]
        lines += [
            f"| {row['case']} | {row['passed']} | {_short(row.get('largest'))} | {_short(row.get('mean_255'))} | "
            f"{str(row.get('said', '')).replace('|', '/')} |"
            for row in report["correct"]
        ]
    if rows:
        names = ("case", "precision", "height", "width", "batch", "ms", "pictures_per_second", "memory_mb", "tflops",
                 "gb_per_second", "failed")  # fmt: skip
        lines += ["", "## Speed", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        lines += [f"| {' | '.join(_short(row.get(name)) for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def collect(work: Path, output: Path, report: dict[str, Any]) -> None:
    """The report so far, and the files that training has left, where they come back from."""
    for stage in STAGES:
        report[stage] = read(work / stage / f"{stage}.json")
    for pattern in KEPT:
        for path in (work / "train").glob(pattern):
            shutil.copy2(path, output / path.name)
    (output / "report.json").write_text(json.dumps(report, indent=1))
    (output / "report.md").write_text(table(report))


def main(arguments: Sequence[str] | None = None) -> int:
    began = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything, from start to end")
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder with content/ and style/")
    parser.add_argument("--weights", help="a model's file or name; those of the data folder, or else the shipped ones")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    for stage in STAGES:
        parser.add_argument(f"--{stage}-options", default="", help=f"more options for gpu_{stage}.py, in one word")
    given = parser.parse_args(arguments)
    output, data = given.output.resolve(), given.data.resolve()
    output.mkdir(parents=True, exist_ok=True)
    work = output.with_name(f"{output.name}-work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    packed = data / "start.safetensors"
    weights = given.weights or (str(packed) if packed.exists() else "light")
    stages = [stage for stage in STAGES if stage in given.stages]
    report: dict[str, Any] = {"minutes": given.minutes, "weights": Path(weights).name, "stages": {}}
    report["packed"] = read(data / "packed.json")
    try:
        path = unpacked(data / "wheels", work / "site")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
        environment["TQDM_MININTERVAL"] = "60"  # bars would fill the log
        facts = ThreadPoolExecutor().submit(machine, environment)
        ends = deadlines(given.minutes, stages, began)
        for stage in stages:
            command = [sys.executable, str(TOOLS / f"gpu_{stage}.py"), "--output", str(work / stage)]
            command += ["--until", str(ends[stage])]
            if stage == "train":
                command += ["--data", str(data), "--weights", weights]
            else:  # what was trained is what is measured, where there is something
                trained = work / "train" / "model.safetensors"
                command += ["--weights", str(trained) if trained.exists() else weights]
            command += getattr(given, f"{stage}_options").split()
            report["stages"][stage] = run_stage(stage, command, ends[stage], output / "log.txt", environment)
            report["machine"], report["total_seconds"] = facts.result(), time.time() - began
            collect(work, output, report)
    finally:
        collect(work, output, report)
        shutil.rmtree(work, ignore_errors=True)
    print((output / "report.md").read_text())
    return 0 if all(stage["exit"] == 0 for stage in report["stages"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
