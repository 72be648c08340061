"""The benchmark command on stand-ins and on tiny pictures: what is measured, left out and written."""

import json
import re
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from arbitrary_nst.benchmark import limits, startup, timing
from arbitrary_nst.benchmark.candidates import Exported, InTorch, LeftOut, picture
from arbitrary_nst.benchmark.peers import other_side
from arbitrary_nst.benchmark.report import Measurement, Omission, markdown
from arbitrary_nst.benchmark.timing import Trial
from arbitrary_nst.commands import benchmark as command
from arbitrary_nst.commands import main
from arbitrary_nst.commands.benchmark import BenchmarkConfig, Run, exported

CPU = torch.device("cpu")


class Stub:
    """A candidate that takes no time; what it cannot it says."""

    precision = None

    def __init__(self, name="stub", tasks=("stylize",), side=None, memory=100.0, again=0.001, error=None):
        self.name, self.tasks, self.side = name, tasks, side
        self.trial, self.error = Trial(2.5, again, memory, memory), error

    def obstacle(self, task, size):
        return other_side(self.side, size)

    def prepare(self, task, size):
        if self.error is not None:
            raise self.error
        return lambda: None


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Trials in this process, small limits, and as much memory as is said."""

    def here(function, candidate, task, size, *rest, seconds):
        candidate.prepare(task, size)
        return candidate.trial if isinstance(candidate, Stub) else function(candidate, task, size, *rest[:2], None)

    monkeypatch.setattr(command, "in_fresh_process", here)
    monkeypatch.setattr(command, "memory_allowed", lambda device: 10**9)
    monkeypatch.setattr(limits, "SIDES", {"cpu": 16})
    monkeypatch.setattr(limits, "COPIED", 1024)


def measured(*candidates, **options):
    run = Run(BenchmarkConfig(sizes=(16, 24), rounds=2, threads=1, **options), CPU, {})
    run.measure(candidates, Path())
    cells = [(m.task, m.size, m.name) for m in run.measurements]
    return run, cells, {(o.size, o.name): o.reason for o in run.omissions}


@pytest.mark.slow
def test_sizes_of_peers_that_have_only_one_are_added_and_the_others_are_told():
    run, cells, reasons = measured(Stub("free", ("encode", "stylize")), Stub("fixed", side=20))
    assert cells == [
        *[("encode", 16, "free"), ("stylize", 16, "free"), ("encode", 20, "free"), ("stylize", 20, "free")],
        *[("stylize", 20, "fixed"), ("encode", 24, "free"), ("stylize", 24, "free")],
    ]
    assert reasons == {(16, "fixed"): "runs at 20x20 only", (24, "fixed"): "runs at 20x20 only"}
    assert run.failures.count == 0
    assert run.measurements[0].first == 2.5


def test_what_is_measured_is_written_as_it_grows(tmp_path):
    class Stopped(BaseException):
        """Ctrl-C."""

    with pytest.raises(Stopped):
        measured(Stub(), Stub("stops", side=24, error=Stopped()), output=tmp_path / "speed.json")
    assert [row["size"] for row in json.loads((tmp_path / "speed.json").read_text())["measurements"]] == [16]


@pytest.mark.slow
def test_what_takes_too_long_or_too_much_memory_is_left_out_and_told():
    slow, large = Stub("slow", again=5.0), Stub("large", memory=950.0)
    run, cells, reasons = measured(Stub("small"), slow, large, longest=10.0)
    assert {name for _, _, name in cells} == {"small"}
    assert reasons[16, "slow"] == "takes 5.0 seconds a call: 2 rounds take more than --longest"
    assert reasons[16, "large"] == "takes 950 MB, which are not free beside the others"
    assert run.failures.count == 0


@pytest.mark.slow
def test_a_failure_is_told_and_the_rest_goes_on(capsys):
    run, cells, reasons = measured(Stub("broken", error=OSError("no such\n\tgraph")), Stub("whole"))
    assert [cell[1:] for cell in cells] == [(16, "whole"), (24, "whole")]
    assert reasons[16, "broken"] == "failed: no such graph"
    assert run.failures.count == 2
    assert "failed: broken stylize 16: no such graph" in capsys.readouterr().err


@pytest.mark.slow
def test_shares_are_the_work_over_the_time_and_the_limits_of_the_same_rounds(monkeypatch, light_model):
    monkeypatch.setattr(command, "alternate", lambda calls, rounds: {name: [30.0, 10.0, 20.0] for name in calls})
    monkeypatch.setattr(command, "work_of", lambda call: limits.Work(flops=4 * 16**3, moved=512))
    monkeypatch.setattr(InTorch, "prepare", lambda self, task, size: lambda: None)
    run, _, _ = measured(InTorch("light", "cpu", "float32"), Stub("peer"))
    ours = next(m for m in run.measurements if m.task == "stylize")
    assert ours.median == 20.0
    assert (ours.of_matrix_limit, ours.of_copy_limit) == (pytest.approx(2), pytest.approx(0.25))
    assert run.limits[0]["a second"] == {"float32": 2 * 16**3 / 0.02, "copy": 2 * 1024 / 0.02}
    peer = next(m for m in run.measurements if m.name == "peer")
    assert peer.of_matrix_limit is peer.of_copy_limit is None


def test_the_tables_have_a_dash_where_nothing_was_measured_and_reasons_below():
    rows = [
        Measurement("stylize", 256, "ours", [1.0], 1.25, 3.0, 512.0, 0.25, None),
        Measurement("stylize", 384, "ours", [2.0], 2.0, 3.0, 512.0, 0.5, None),
        Measurement("stylize", 384, "peer", [80.0], 80.04, 1.0, None, None, None),
    ]
    left = [Omission("stylize", size, "peer", "runs at 384x384 only") for size in (256, 512)]
    text = markdown(rows, [*left, Omission(None, None, "other.onnx", "failed: no such file")])
    assert (
        "Painting a photo, its style encoded: median milliseconds\n\n"
        "| | 256 | 384 |\n|---|---|---|\n| ours | 1.2 | 2.0 |\n| peer | - | 80.0 |\n" in text
    )
    assert "% of the matrix-product limit\n\n| | 256 | 384 |\n|---|---|---|\n| ours | 25.0 | 50.0 |\n" in text
    assert "copy limit" not in text
    assert "Encoding" not in text
    assert text.endswith(
        "Left out:\n\n- peer stylize 256 512: runs at 384x384 only\n- other.onnx: failed: no such file"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": ()}, "--sizes"),
        ({"sizes": (0,)}, "--sizes 0"),
        ({"rounds": 0}, "--rounds 0"),
        ({"threads": 0}, "--threads 0"),
        ({"longest": 0.0}, "--longest 0"),
        ({"callable": ("module",)}, "--callable module: must be MODULE:FUNCTION"),
        ({"callable": (":function",)}, "--callable :function"),
        ({"plot": Path("plot.txt")}, "--plot plot.txt: must end in"),
        ({"plot": Path("plot.png"), "startup": True}, "--plot: --startup"),
        ({"model": "."}, "--model .: give the model"),
    ],
)
def test_options_out_of_range_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        BenchmarkConfig(**change)


@pytest.mark.parametrize(
    ("candidate", "task", "size", "message"),
    [
        (InTorch("light", "cpu", "bfloat16"), "encode", 64, "always encoded in float32"),
        (InTorch("light", "cpu", "float32", compiled=True), "stylize", 1025, "above 1048576 pixels"),
        (InTorch("light", "cpu", "bfloat16"), "stylize", 64, "does not multiply bfloat16 natively"),
        (InTorch("light", "cpu", "float16"), "stylize", 64, "does not multiply float16 natively"),
        (InTorch("light", "cpu", "float32", compiled=True), "stylize", 64, r"needs a C\+\+ compiler"),
        (Exported("light", Path(), "OpenVINO", "float32"), "encode", 64, "needs openvino: pip install openvino"),
        (Exported("light", Path(), "OpenVINO", "bfloat16"), "stylize", 64, "needs openvino"),
    ],
)
def test_variants_that_do_not_run_say_why(monkeypatch, candidate, task, size, message):
    from arbitrary_nst.benchmark import candidates

    monkeypatch.setattr(candidates, "fast_bfloat16", lambda device: False)
    monkeypatch.setattr(candidates, "fast_float16", lambda device: False)
    monkeypatch.setattr(candidates.shutil, "which", lambda name: None)
    monkeypatch.setattr(candidates, "find_spec", lambda name: None)
    assert re.search(message, candidate.obstacle(task, size))


def test_a_missing_package_leaves_the_exported_model_out(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LeftOut, match=r"needs onnxruntime: pip install 'arbitrary_nst\[export\]'"):
        exported("light", tmp_path)


def test_generated_pictures_are_pictures_and_differ_by_seed():
    assert picture(20).shape == (1, 3, 20, 20)
    assert 0 <= picture(20).min() < picture(20).max() <= 1
    assert not torch.equal(picture(20), picture(20, seed=1))


@pytest.mark.slow
def test_the_command_measures_both_tasks_and_writes_its_record_and_plot_whole(model_file, tmp_path, capsys):
    output, plot = tmp_path / "new" / "speed.json", tmp_path / "new" / "speed.png"
    options = ["--model", str(model_file), "--sizes", "80", "96", "--rounds", "2", "--device", "cpu", "--threads", "1"]
    files = ["--output", str(output), "--plot", str(plot), "--callable", "nowhere:paint"]
    threads = torch.get_num_threads()
    assert main(["benchmark", *options, "--variants", "float32", *files]) == 1
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr()
    assert "| random float32 |" in printed.out
    assert "- nowhere:paint: failed: No module named 'nowhere'" in printed.out
    assert "1 failed:" in printed.err
    record = json.loads(output.read_text())
    assert {(m["task"], m["size"]) for m in record["measurements"]} == {
        (task, size) for task in ("encode", "stylize") for size in (80, 96)
    }
    for row in record["measurements"]:
        assert len(row["milliseconds"]) == 2
        assert row["median"] == statistics.median(row["milliseconds"]) > 0
        assert row["of_matrix_limit"] > 0
        assert row["of_copy_limit"] > 0
    assert record["conditions"]["threads"] == 1
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in output.parent.iterdir()) == ["speed.json", "speed.png"]


def test_the_first_picture_is_measured_in_turn_beside_the_imports(monkeypatch, tmp_path, capsys):
    now, commands = [0.0], []

    class Done:
        returncode, stderr = 0, ""

    def run(command, **options):
        commands.append(command)
        now[0] += 2 if "-c" in command else 3
        return Done()

    monkeypatch.setattr(startup, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert main(["benchmark", "--startup", "--rounds", "2", "--output", str(tmp_path / "start.json")]) == 0
    assert [("-c" in command) for command in commands] == [True, False] * 3
    assert "| `stylize` | 3.00 | 1.50 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "start.json").read_text())["seconds"]["stylize"] == [3, 3]
    Done.returncode, Done.stderr = 1, "no such device"
    with pytest.raises(RuntimeError, match="exit code 1: no such device"):
        startup.startup("light", "cpu", 1)
