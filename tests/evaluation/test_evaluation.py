"""The comparison of methods: true runs on tiny pictures, resuming, failures, and the arithmetic of its tables."""

import csv
import json
import math
import mmap
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import arbitrary_nst
from arbitrary_nst.commands import main
from arbitrary_nst.commands.evaluate import EvaluateConfig, check_settings, evaluate, find_pairs, settings_of
from arbitrary_nst.errors import UsageError
from arbitrary_nst.evaluation import methods as making
from arbitrary_nst.evaluation import metrics, report
from arbitrary_nst.evaluation.local_metrics import Judge, local_scores, views
from arbitrary_nst.evaluation.methods import (
    FolderMethod,
    ModelMethod,
    OptimizationMethod,
    parse_methods,
    peak_memory,
    reset_peak_memory,
    timed,
)
from arbitrary_nst.evaluation.metrics import Unavailable
from arbitrary_nst.evaluation.pairs import EvaluationSettings, Pair, ResultLog, read_pairs, square
from arbitrary_nst.evaluation.report import COLUMNS, comparisons, equivalent_iterations, markdown, means_of, versions
from arbitrary_nst.image import load_image, save_image
from arbitrary_nst.image.figures import contact_sheet
from arbitrary_nst.models import FixedStyles, multi_style
from arbitrary_nst.models.serialization import save_model
from arbitrary_nst.runtime.files import Failures

SIZE = 32
PAIRS = ["lake_stylized_dots", "lake_stylized_waves", "hill_stylized_dots", "hill_stylized_waves"]


@pytest.fixture(scope="module")
def features():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return metrics.feature_network(pretrained=False)


@pytest.fixture(scope="module")
def model_file(light_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    save_model(light_model, "light", path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two photos, two paintings, and pictures that somebody else made of the four pairs."""
    for kind, names in (("content", ("lake", "hill")), ("style", ("dots", "waves"))):
        for name in names:
            save_image(torch.rand(1, 3, 40, 52), tmp_path / kind / f"{name}.png")
    for name in PAIRS:
        save_image(torch.rand(1, 3, SIZE, SIZE), tmp_path / "peer" / f"{name}.png")
    return tmp_path


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    """The networks that may not be had are not; tests that want one put theirs in the place."""
    for name in ("perceptual_distance", "inception", "art_inception"):
        monkeypatch.setattr(metrics, name, lambda device, name=name: Unavailable(f"no {name} in tests"))


@pytest.fixture
def run(folder, features):
    def call(*methods, **options):
        paths = {"content": (folder / "content",), "style": (folder / "style",), "output": folder / "out"}
        config = EvaluateConfig(methods=methods, **{"device": "cpu", "size": SIZE, **paths, **options})
        return evaluate(config, features)

    return call


@pytest.fixture
def optimizer(monkeypatch):
    """In the place of the optimization: its pictures go from the photo to the painting; runs are counted."""
    runs = []

    def optimize(content, styles, config, *, device, precision, seed, features):
        (steps,) = config.steps
        runs.append(steps)
        total = 3 * steps if config.coarsest else steps  # as if there were three scales
        for step in range(1, total + 1):
            yield SimpleNamespace(step=step, steps=total, image=torch.lerp(content, styles[0], 1 - 0.9**step))

    monkeypatch.setattr(making.loop, "optimize", optimize)
    monkeypatch.setattr(making.loop, "feature_network", lambda config: None)
    return runs


def results(folder) -> dict:
    return json.loads((folder / "out" / "results.json").read_text())


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]


# True runs


def test_an_optimization_from_coarse_to_fine_is_looked_at_when_it_is_done(run, folder, optimizer):
    assert run("coarse=kolkin2022@2", "whole=gatys2016@6") == 0
    pictures = folder / "out" / "pictures"
    for name in PAIRS:
        coarse, whole = (load_image(pictures / label / f"{name}.png") for label in ("coarse@2", "whole@6"))
        assert torch.equal(coarse, whole)


def test_models_folders_and_optimizations_meet_in_one_table(run, folder, model_file, optimizer, capsys):
    assert run(f"ours={model_file}", str(folder / "peer"), "slow=gatys2016@3,1") == 0
    out = folder / "out"
    made = {path.relative_to(out / "pictures").as_posix() for path in (out / "pictures").rglob("*.png")}
    assert made == {f"{method}/{name}.png" for method in ("ours", "slow@1", "slow@3") for name in PAIRS}
    assert optimizer == [1] + [3] * 4  # one uncounted, then one run a pair

    record = results(folder)
    assert list(record["means"]) == ["ours", "peer", "slow@1", "slow@3"]
    assert len(record["rows"]) == 16
    assert record["pairs"] == [name.split("_stylized_") for name in sorted(PAIRS)]
    assert record["versions"]["torch"] == torch.__version__
    assert record["failures"] == 0
    for label in ("ours", "slow@3"):
        assert record["means"][label]["seconds"] > 0
    assert "seconds" not in record["means"]["peer"]
    table = (out / "table.md").read_text()
    assert table.strip() in capsys.readouterr().out
    assert "no perceptual_distance in tests" in table
    assert len(record["comparisons"]) == 2  # of ours and of peer
    assert (out / "plot.png").stat().st_size > 0
    assert load_image(out / "sheet.png").shape[2] > 4 * SIZE


def test_the_worst_cases_are_those_of_the_first_method_worst_first(run, folder, model_file, monkeypatch):
    captions = []

    def keep(cells, columns, names, size):
        captions.append(names)
        return contact_sheet(cells, columns, names, size)

    monkeypatch.setattr(report, "WORST_ROWS", 3)
    monkeypatch.setattr(report, "contact_sheet", keep)
    run(str(folder / "peer"), str(model_file))
    rows = [row for row in results(folder)["rows"] if row["method"] == "peer"]
    rows.sort(key=lambda row: -row["objective"])
    assert captions[1] == [f"{row['objective']:.2f}: {row['content']}, {row['style']}" for row in rows[:3]]
    assert load_image(folder / "out" / "worst.png").shape[2] > 3 * SIZE


def test_table_values_are_the_means_of_their_rows(run, folder, model_file):
    run(str(model_file), str(folder / "peer"))
    record = results(folder)
    with (folder / "out" / "table.csv").open() as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    for label in ("random", "peer"):
        rows = [row for row in record["rows"] if row["method"] == label]
        assert len(rows) == 4
        assert table[label]["pairs"] == "4"
        for column in ("objective", "style_gap", "gram_gap", "content_drift", "ssim"):
            mean = sum(row[column] for row in rows) / 4
            assert float(table[label][column]) == pytest.approx(mean)
            assert record["means"][label][column] == pytest.approx(mean)
        assert table[label]["lpips"] == ""


def test_scores_are_those_of_the_written_picture(run, folder, model_file, features):
    run(str(model_file), limit=1)
    (row,) = results(folder)["rows"]
    path = folder / "out" / "pictures" / "random" / f"{row['content']}_stylized_{row['style']}.png"
    photo, painting = (square(load_image(folder / kind / f"{row[kind]}.png"), SIZE) for kind in ("content", "style"))
    expected = metrics.scores(
        *(metrics.image_statistics(features, image) for image in (load_image(path), photo, painting))
    )
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_peak_memory_is_of_the_process_and_begins_anew():
    device = torch.device("cpu")
    if not reset_peak_memory(device):
        pytest.skip("this system does not tell")
    peaks = [peak_memory(device) or math.nan]
    with mmap.mmap(-1, 80_000_000) as block:  # a tensor's memory may be kept by the process
        block.write(bytes(80_000_000))
    peaks.append(peak_memory(device) or math.nan)
    reset_peak_memory(device)
    peaks.append(peak_memory(device) or math.nan)
    assert peaks[1] > peaks[0] + 60  # 80 MB, freed since
    assert peaks[2] < peaks[1] - 40


def test_the_clock_stops_while_a_picture_is_saved(folder, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(making.time, "perf_counter", lambda: now[0])

    def paint(pair, content, style, labels):
        for label in labels:
            now[0] += 1
            yield label, content

    pair = Pair(folder / "content" / "lake.png", folder / "style" / "dots.png", "lake", "dots")
    settings = EvaluationSettings(SIZE, torch.device("cpu"), "float32", 0)
    seconds = []
    for _, image, cost in timed(paint, pair, ["a", "b"], settings):
        assert image.shape == (1, 3, SIZE, SIZE)
        seconds.append(cost["seconds"])
        now[0] += 10
    assert seconds == [1, 2]


def test_scores_by_place_are_in_the_table_and_made_anew_for_other_octaves(run, folder, features):
    judge = Judge()
    for octaves in ((32, 64), (32, 40)):
        assert run(str(folder / "peer"), size=40, octaves=octaves, output=folder / "out") == 0
        record = results(folder)
        for row in record["rows"]:
            name = f"{row['content']}_stylized_{row['style']}"
            files = [f"peer/{name}", f"content/{row['content']}", f"style/{row['style']}"]
            images = [square(load_image(folder / f"{file}.png"), 40) for file in files]
            seen = [views(features, judge, image, [side for side in octaves if side <= 40]) for image in images]
            assert row["local"] == pytest.approx(local_scores(*seen))
        for column in ("style", "structure", "judge_style", "judge_structure"):
            mean = sum(row["local"][column] for row in record["rows"]) / 4
            assert record["means"]["peer"][column] == pytest.approx(mean)


def test_columns_without_an_octave_say_why(run, folder):
    assert run(str(folder / "peer"), octaves=(64,)) == 0
    assert "style" not in results(folder)["means"]["peer"]
    assert "--octaves" in (folder / "out" / "table.md").read_text()


def test_pictures_stay_whole_where_no_size_is_asked_for(run, folder, model_file):
    save_image(torch.rand(1, 3, 60, 33), folder / "content" / "hill.png")
    assert run(str(model_file), str(folder / "peer"), size=None, octaves=(32,)) == 0
    record = results(folder)
    for name in PAIRS:
        made = load_image(folder / "out" / "pictures" / "random" / f"{name}.png")
        assert made.shape[2:] == ((40, 52) if name.startswith("lake") else (60, 33))
    for values in record["means"].values():
        assert {"objective", "style", "structure"} <= values.keys()
    table = (folder / "out" / "table.md").read_text()
    assert "peer: 4 pictures were brought to the size of their photos" in table
    assert "random: " not in table


# Resuming


def test_what_is_done_is_not_done_again(run, folder, model_file, optimizer, monkeypatch):
    methods = (str(model_file), str(folder / "peer"), "relative@2")
    assert run(*methods) == 0
    before, means = lines(folder), results(folder)["means"]
    optimizer.clear()
    monkeypatch.setattr(making.Stylizer, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(metrics, "scores", lambda *_: pytest.fail("a picture was scored"))
    assert run(*methods) == 0
    assert optimizer == []
    assert sorted(map(str, lines(folder))) == sorted(str(row) for row in before if "objective" in row)
    assert results(folder)["means"] == means


def test_an_interrupted_run_goes_on(run, folder, optimizer):
    assert run("relative@1,3") == 0
    expected = results(folder)["means"]
    log = folder / "out" / "results.jsonl"
    kept = [row for row in lines(folder) if (row["method"], row["content"]) != ("relative@1", "hill")]
    log.write_text("".join(json.dumps(row) + "\n" for row in kept) + '{"method": "rela')  # killed while writing
    (folder / "out" / "pictures" / "relative@3" / "lake_stylized_dots.png").unlink()
    optimizer.clear()
    assert run("relative@1,3") == 0
    assert optimizer == [1, 1, 1, 3]  # the uncounted one, two pairs that lack the first, one the second
    for label, values in results(folder)["means"].items():
        assert values["objective"] == pytest.approx(expected[label]["objective"])


def test_methods_can_be_added_and_a_changed_one_is_made_anew(run, folder, light_model, tmp_path):
    changing = tmp_path / "changing.safetensors"
    save_model(light_model, "light", changing)
    assert run(str(folder / "peer")) == 0
    assert run(str(folder / "peer"), str(changing)) == 0
    first = results(folder)["means"]
    save_model(light_model, "light", changing, half=True)
    save_image(torch.zeros(1, 3, SIZE, SIZE), folder / "peer" / f"{PAIRS[0]}.png")
    assert run(str(folder / "peer"), str(changing)) == 0
    second = results(folder)["means"]
    assert second["changing"]["seconds"] != first["changing"]["seconds"]
    assert second["peer"]["objective"] != first["peer"]["objective"]


@pytest.mark.parametrize("change", [{"size": 48}, {"seed": 1}, {"limit": 2}, {"precision": "bfloat16"}])
def test_a_folder_of_other_settings_is_refused(folder, change):
    config = EvaluateConfig(
        methods=("peer",), content=(folder / "content",), style=(folder / "style",), output=folder, size=SIZE
    )

    def settings(config):
        return settings_of(
            EvaluationSettings(config.size, torch.device("cpu"), config.precision, config.seed), find_pairs(config)
        )

    check_settings(folder / "settings.json", settings(config))
    check_settings(folder / "settings.json", settings(config))
    with pytest.raises(ValueError, match="other pairs" if "limit" in change else next(iter(change))):
        check_settings(folder / "settings.json", settings(replace(config, **change)))


# Failures


def test_bad_pictures_are_told_and_the_others_done(run, folder, model_file, capsys):
    (folder / "content" / "broken.png").write_bytes(b"no picture")
    (folder / "peer" / f"{PAIRS[0]}.png").unlink()
    (folder / "peer" / f"{PAIRS[1]}.png").write_bytes(b"no picture")
    assert run(str(model_file), str(folder / "peer")) == 1
    errors = capsys.readouterr().err
    assert "broken.png" in errors
    assert f"{PAIRS[0]}.*" in errors
    assert f"{PAIRS[1]}.png" in errors
    record = results(folder)
    assert record["failures"] == 2 + 2 + 1 + 1  # of ours and, missing, of the peer; one missing and one damaged
    table = (folder / "out" / "table.md").read_text()
    assert "| random | 4 of 6 |" in table
    assert "| peer | 2 of 6 |" in table


def test_a_bad_method_does_not_end_the_run(run, folder, model_file, capsys):
    (folder / "damaged.safetensors").write_bytes(b"no model")
    (folder / "empty").mkdir()
    methods = [str(folder / "damaged.safetensors"), "mona", str(folder / "empty"), str(model_file)]
    assert run(*methods) == 1
    errors = capsys.readouterr().err
    assert all(name in errors for name in ("damaged.safetensors", "mona", "empty"))
    assert "| random | 4 |" in (folder / "out" / "table.md").read_text()


def test_an_optimization_that_fails_leaves_what_it_had_made(run, folder, optimizer, monkeypatch, capsys):
    steady = making.loop.optimize

    def diverging(content, styles, config, **options):
        for iterate in steady(content, styles, config, **options):
            if iterate.step == 3:
                raise FloatingPointError("the loss is no longer a number")
            yield iterate

    monkeypatch.setattr(making.loop, "optimize", diverging)
    assert run("relative@2,4") == 1
    assert "no longer a number" in capsys.readouterr().err
    table = (folder / "out" / "table.md").read_text()
    assert "| relative@2 | 4 |" in table
    assert "| relative@4 | 0 of 4 |" in table


# Methods


@pytest.mark.parametrize(
    ("precision", "expected"), [("auto", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")]
)
def test_optimizations_are_in_bfloat16_where_it_is_asked_for_by_name(
    run, folder, optimizer, monkeypatch, precision, expected
):
    faked, seen = making.loop.optimize, set()

    def optimize(*arguments, **options):
        seen.add(options["precision"])
        return faked(*arguments, **options)

    monkeypatch.setattr(making.loop, "optimize", optimize)
    assert run("relative@1", limit=1, precision=precision) == 0
    assert seen == {expected}
    settings = json.loads((folder / "out" / "settings.json").read_text())
    for record in (settings, results(folder)):
        assert (record["precision"], record["optimization_precision"]) == (precision, expected)


def test_pictures_of_another_size_are_brought_to_the_common_one_and_counted(run, folder):
    save_image(torch.rand(1, 3, 40, 52), folder / "peer" / f"{PAIRS[2]}.png")
    assert run(str(folder / "peer")) == 0
    assert f"peer: 1 pictures were brought to {SIZE} pixels" in (folder / "out" / "table.md").read_text()


def test_a_model_of_fixed_styles_makes_only_those_that_it_knows(run, folder):
    files = []
    for styles in (("waves",), ("other", "stars")):
        model = multi_style(styles=styles).eval()
        assert isinstance(model, FixedStyles)
        files.append(folder / f"{styles[0]}.safetensors")
        save_model(model, "multi-style", files[-1])
    assert run("fixed=" + ",".join(map(str, files))) == 0
    assert "| fixed | 2 of 4 |" in (folder / "out" / "table.md").read_text()
    made = sorted(path.name for path in (folder / "out" / "pictures" / "fixed").iterdir())
    assert made == ["hill_stylized_waves.png", "lake_stylized_waves.png"]


def test_methods_are_read_by_what_they_name(folder, model_file):
    methods = parse_methods([str(folder / "peer"), f"a={model_file}", "x.safetensors,y.safetensors", "g=relative@9,1"])
    assert methods == [
        FolderMethod("peer", folder / "peer"),
        ModelMethod("a", (str(model_file),)),
        ModelMethod("x+y", ("x.safetensors", "y.safetensors")),
        OptimizationMethod("g", "relative", (1, 9)),
    ]
    assert [label for method in methods for label in method.labels] == ["peer", "a", "x+y", "g@1", "g@9"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["relative@0"], "positive numbers"),
        (["relative@5,"], "positive numbers"),
        (["relative@many"], "positive numbers"),
        (["kolkin2022@5,6"], "one number"),
        (["nonesuch@5"], "no preset 'nonesuch'"),
        (["light", "Light"], "'Light' is taken"),
        (["a=relative@5", "a=relative@5,6"], "'a@5' is taken"),
        (["a="], "names no model"),
        (["a:b=light"], "cannot name a folder"),
        (["..=light"], "cannot name a folder"),
    ],
)
def test_methods_that_cannot_be_are_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_methods(texts)


# Pairs


def test_every_photo_meets_every_painting_and_names_are_unique(folder):
    save_image(torch.rand(1, 3, 33, 33), folder / "more" / "lake.jpg")
    config = EvaluateConfig(
        methods=("light",),
        content=(folder / "content", folder / "more"),
        style=(folder / "style" / "dots.png",),
        output=folder / "out",
    )
    hill, *lakes = [pair.name for pair in find_pairs(config)]
    assert hill == "hill_stylized_dots"
    assert len({*lakes, hill}) == 3
    assert len(find_pairs(replace(config, limit=2))) == 2
    save_image(torch.rand(1, 3, 33, 33), folder / "before" / "lake.jpg")
    more = replace(config, content=(folder / "before", *config.content))
    assert [pair.name for pair in find_pairs(more)][1:] == [hill, *lakes]


def test_names_too_long_for_the_disk_are_cut(run, folder, model_file):
    for kind, name in (("content", "hill"), ("style", "dots")):
        (folder / kind / f"{name}.png").rename(folder / kind / f"{'x' * 200}{name}.png")
    assert run(str(model_file)) == 0
    assert len(list((folder / "out" / "pictures" / "random").iterdir())) == 4


@pytest.mark.parametrize(
    ("lying", "option"),
    [
        ("out/sheet.png", "content"),
        ("out/pictures/random/lake_stylized_dots.png", "content"),
        ("out/table.csv", "pairs"),
        ("judged/sheet_00.png", "content"),
    ],
)
def test_what_is_read_is_not_written_over(run, folder, model_file, lying, option):
    path = folder / lying
    path.parent.mkdir(parents=True)
    options = {"content": (folder / "content", path), "style": (folder / "style",)}
    if option == "pairs":
        path.write_text("../content/lake.png,../style/dots.png\n")
        options = {"content": (), "style": (), "pairs": path}
    else:
        (folder / "content" / "hill.png").rename(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=path.name):
        run(str(model_file), f"theirs={folder / 'peer'}", sheets=folder / "judged", **options)
    assert path.read_bytes() == before


def test_pictures_made_elsewhere_are_not_written_over(run, folder, model_file):
    theirs = folder / "out" / "pictures" / "random"
    theirs.parent.mkdir(parents=True)
    (folder / "peer").rename(theirs)
    with pytest.raises(UsageError, match=theirs.name):
        run(str(model_file), f"theirs={theirs}")


@pytest.mark.slow
@pytest.mark.parametrize("output", ["content", "style/new"])
def test_what_a_comparison_writes_is_neither_content_nor_style_nor_a_picture_made_elsewhere(
    run, folder, model_file, output
):
    (folder / "content").rename(folder / "peer" / "content")
    (folder / "style").rename(folder / "peer" / "style")
    everything = {"content": (folder / "peer" / "content",), "style": (folder / "peer" / "style",)}
    options = {"output": folder / "peer" / output, "sheets": folder / "peer" / output / "sheets"}
    for _ in range(2):
        assert run(str(model_file), f"theirs={folder / 'peer'}", **everything, **options) == 0


def test_pictures_of_stylize_are_found_by_the_names_that_it_gives(run, folder, model_file):
    for name in ("a/lake.png", "b/lake.png", "b/Lake.PNG", f"{'x' * 240}.jpg"):
        save_image(torch.rand(1, 3, 40, 52), folder / "photos" / name)
    for name in ("c.png", "C.PNG", "d/c.png"):
        save_image(torch.rand(1, 3, 40, 52), folder / "paintings" / name)
    chosen = ["--content", str(folder / "photos"), "--style", str(folder / "paintings")]
    made = ["--output", str(folder / "made"), "--format", "jpg", "--model", str(model_file), "--device", "cpu"]
    assert main(["stylize", *chosen, *made]) == 0
    options: dict[str, Any] = {"content": (folder / "photos",), "style": (folder / "paintings",)}
    assert run(f"theirs={folder / 'made'}", **options) == 0
    config = EvaluateConfig(methods=(str(folder / "made"),), output=folder / "out", **options)
    settings, log = EvaluationSettings(SIZE, torch.device("cpu"), "auto", 0), ResultLog(folder / "journal")

    def found(pairs):
        (method,) = parse_methods(config.methods)
        return method.make(pairs, settings, folder, log, Failures())["made"]

    pictures = found(find_pairs(config))
    assert len(pictures) == 12
    assert sorted(pictures.values()) == sorted((folder / "made").rglob("*.jpg"))
    some = found(find_pairs(replace(config, limit=5)))
    assert len(some) == 5
    assert set(some.values()) < set(pictures.values())


def test_verdicts_are_not_written_over(run, folder):
    verdict = folder / "out" / "verdicts.json"
    verdict.parent.mkdir()
    verdict.write_text("{}")
    with pytest.raises(UsageError, match=r"verdicts\.json"):
        run(content=(), style=(), sheets=folder / "judged", verdicts=(verdict,))
    assert verdict.read_text() == "{}"


@pytest.mark.parametrize(("options", "option"), [({"output": "table.csv"}, "output"), ({"sheets": "a.png"}, "sheets")])
def test_a_file_in_the_place_of_a_folder_is_refused(run, folder, model_file, options, option):
    with pytest.raises(UsageError, match=f"^--{option} "):
        run(str(model_file), **{name: folder / path for name, path in options.items()})


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_pairs_come_from_a_file_with_paths_relative_to_it(folder, suffix, separator):
    path = folder / f"pairs{suffix}"
    rows = [("Content", "Style"), ("content/lake.png", "style/dots.png"), (" content/hill.png", "style/waves.png")]
    path.write_text("\ufeff" + "\n".join(map(separator.join, rows)) + "\n\n", encoding="utf-8")
    config = EvaluateConfig(methods=("light",), pairs=path, output=folder / "out")
    assert [pair.name for pair in find_pairs(config)] == ["lake_stylized_dots", "hill_stylized_waves"]
    assert find_pairs(config)[0].content == folder / "content" / "lake.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("content/lake.png\n", "line 1: needs two columns"),
        ("content/lake.png,style/dots.png,style/waves.png\n", "line 1: needs two columns"),
        ("content,style\ncontent/lake.png,\n", "line 2: needs two columns"),
        ("content/lake.png,style/none.png\n", "line 1: there is no file .*none.png"),
        ("content,style\n", "names no pair"),
        ("", "names no pair"),
    ],
)
def test_a_wrong_file_of_pairs_is_refused_with_its_line(folder, text, message):
    path = folder / "pairs.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pairs(path)


def test_a_file_of_pairs_that_is_not_there_is_refused(folder):
    with pytest.raises(ValueError, match="cannot be read"):
        read_pairs(folder / "nowhere.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ()}, "--methods"),
        ({"style": ()}, "--style"),
        ({"pairs": Path("pairs.csv")}, "--pairs"),
        ({"size": 31}, "--size 31"),
        ({"limit": 0}, "--limit 0"),
        ({"octaves": (256, 31)}, "--octaves 31"),
        ({"verdicts": (Path("a.json"),)}, "--sheets"),
    ],
)
def test_options_that_contradict_each_other_are_refused_by_name(tmp_path, change, message):
    options = {"methods": ("light",), "content": (tmp_path,), "style": (tmp_path,), "output": tmp_path}
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**options | change)


@pytest.mark.parametrize("shape", [(40, 52), (52, 40), (20, 24), (32, 32)])
def test_squares_are_of_the_middle(shape):
    image = torch.zeros(1, 3, *shape)
    image[:, :, shape[0] // 2 - 2 : shape[0] // 2 + 2, shape[1] // 2 - 2 : shape[1] // 2 + 2] = 1
    cut = square(image, 32)
    assert cut.shape == (1, 3, 32, 32)
    assert torch.allclose(cut, cut.flip(2), atol=1e-5)
    assert torch.allclose(cut, cut.flip(3), atol=1e-5)


# Arithmetic


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (16.1, "worse"),
        (16.0, 10.0),
        (8.0, 20.0),  # the geometric middle of 16 and 4
        (4.0, 30.0),
        (math.sqrt(8), 40.0),  # halfway from 4 to 2 on the logarithm
        (2.0, 50.0),
        (1.9, "better"),
    ],
)
def test_equivalent_iterations_by_hand(value, expected):
    found = equivalent_iterations([(10, 16.0), (30, 4.0), (50, 2.0)], value)
    assert found == (expected if isinstance(expected, str) else pytest.approx(expected))


def test_equivalent_iterations_take_the_first_crossing_and_pass_level_stretches():
    curve = [(1, 4.0), (2, 4.0), (3, 6.0), (4, 1.0), (5, 3.0), (6, 1.0)]
    assert equivalent_iterations(curve, 4.0) == 1
    assert equivalent_iterations(curve, 1.0) == 4
    assert equivalent_iterations([(7, 3.0)], 3.0) == 7
    assert equivalent_iterations([(7, 3.0)], 2.0) == "better"
    assert equivalent_iterations([(1, 2.0), (5, 0.0)], 0.0) == pytest.approx(5)


def test_methods_are_compared_on_their_common_pairs_alone():
    rows = {
        "g@10": {"a": {"objective": 16.0}, "b": {"objective": 100.0}},
        "g@30": {"a": {"objective": 4.0}, "b": {"objective": 50.0}},
        "fixed": {"a": {"objective": 8.0}},
        "good": {"a": {"objective": 1.0}, "b": {"objective": 1.0}},
        "bad": {"a": {"objective": 500.0}},
        "none": {},
    }
    methods = [
        OptimizationMethod("g", "relative", (10, 30)),
        *(ModelMethod(name, ()) for name in ("fixed", "good", "bad", "none")),
    ]
    assert comparisons(methods, rows) == [
        "fixed equals g at about 20 iterations, on 1 pairs",
        "good is better than g at 30 iterations, the most measured, on 2 pairs",
        "bad is worse than g at 10 iterations, the fewest measured, on 1 pairs",
    ]


def test_means_pass_over_what_a_row_has_not():
    rows = [{"objective": 1.0, "seconds": 2.0, "memory_mb": None}, {"objective": 4.0, "method": "x"}]
    assert means_of(rows) == {"objective": 2.5, "seconds": 2.0}


def test_an_interrupted_picture_does_not_make_its_method_slow():
    assert means_of([{"seconds": seconds} for seconds in (1.0, 1.2, 600.0)]) == {"seconds": 1.2}


def test_the_table_tells_what_nobody_has_from_what_one_has_not():
    means = {"a": {"objective": 1.23456, "seconds": 0.5}, "b": {"objective": 2.0}}
    header, _, first, second = markdown(means, {"a": (3, 3), "b": (1, 3)}).splitlines()
    assert header.split(" | ")[2:] == [*list(COLUMNS)[:-1], "memory (MB) |"]
    local, others = " n/a |" * 5, " n/a |" * 7
    assert first == f"| a | 3 |{local} 1.235 |{others} 0.500 | n/a |"
    assert second == f"| b | 1 of 3 |{local} 2.000 |{others} - | n/a |"


def test_the_record_names_the_commit_of_the_checkout():
    root = Path(arbitrary_nst.__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("the package is not in a checkout")
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert versions(torch.device("cpu"))["commit"] == head.stdout.strip()


# Networks that may not be had


def test_lpips_fid_and_artfid_are_in_the_table_where_they_can_be_had(run, folder, monkeypatch):
    assert run(str(folder / "peer")) == 0
    assert "lpips" not in results(folder)["means"]["peer"]
    monkeypatch.setattr(metrics, "perceptual_distance", lambda device: lambda output, content: 0.5)
    monkeypatch.setattr(metrics, "inception", lambda device: "inception")
    monkeypatch.setattr(metrics, "art_inception", lambda device: "art")

    def frechet_distance(network, outputs, references):
        assert len(list(outputs)) == len(list(references)) == 4
        return {"inception": 7.0, "art": 3.0}[network]

    monkeypatch.setattr(metrics, "frechet_distance", frechet_distance)
    assert run(str(folder / "peer"), octaves=(32,)) == 0  # old scores are completed
    means = results(folder)["means"]["peer"]
    assert (means["lpips"], means["fid"], means["artfid"]) == (0.5, 7.0, 6.0)
    assert "not available" not in (folder / "out" / "table.md").read_text()


def test_artfid_needs_lpips_and_says_so(run, folder, monkeypatch):
    monkeypatch.setattr(metrics, "art_inception", lambda device: "art")
    assert run(str(folder / "peer")) == 0
    assert "artfid: not available: it needs LPIPS" in (folder / "out" / "table.md").read_text()


def test_a_folder_without_any_picture_leaves_a_table_and_no_sheet(run, folder):
    shutil.rmtree(folder / "peer")
    (folder / "peer").mkdir()
    assert run(str(folder / "peer")) == 1
    assert "| peer | 0 of 4 |" in (folder / "out" / "table.md").read_text()
    assert not (folder / "out" / "sheet.png").exists()
