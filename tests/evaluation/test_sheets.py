"""Blind sheets, the form in a browser, and the summary of verdicts: by hand, and beside an independent script."""

import importlib.util
import json
from argparse import Namespace

import pytest
import torch
from PIL import Image

from arbitrary_nst.commands import main
from arbitrary_nst.errors import UsageError
from arbitrary_nst.evaluation.pairs import EvaluationSettings, Pair
from arbitrary_nst.evaluation.sheets import (
    CRITERIA,
    agreement,
    key_file,
    summarize_verdicts,
    wilson_interval,
    write_sheets,
)
from arbitrary_nst.image import load_image, save_image

COLORS = {"ours": (0.8, 0.2, 0.2), "theirs": (0.2, 0.8, 0.2), "slow": (0.2, 0.2, 0.8)}
PAIRS = [("hill", "dots"), ("hill", "waves"), ("lake", "dots"), ("lake", "waves")]
SETTINGS = EvaluationSettings(None, torch.device("cpu"), "float32", 0)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Photos, paintings, and each method's pictures, all of a colour; those of one method are half as large."""
    folder = tmp_path_factory.mktemp("sheets")
    for name in ("hill", "lake"):
        save_image(torch.rand(1, 3, 450, 900), folder / "content" / f"{name}.png")
    for name in ("dots", "waves"):
        save_image(torch.rand(1, 3, 60, 40), folder / "style" / f"{name}.png")
    for method, color in COLORS.items():
        for content, style in PAIRS:
            picture = (
                torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, *((225, 450) if method == "slow" else (450, 900)))
            )
            save_image(picture, folder / method / f"{content}_stylized_{style}.png")
    return folder


@pytest.fixture(scope="module")
def pairs(material):
    return [Pair(material / "content" / f"{c}.png", material / "style" / f"{s}.png", c, s) for c, s in PAIRS]


@pytest.fixture
def sheets(material, pairs, tmp_path):
    """A folder of sheets of all methods."""
    pictures = {method: {pair: material / method / f"{pair.name}.png" for pair in pairs} for method in COLORS}
    write_sheets(tmp_path / "sheets", pairs, pictures, SETTINGS, seed=3)
    return tmp_path / "sheets"


@pytest.fixture(scope="module")
def panel(shared):
    """The script whose sheets and verdicts have the same form."""
    path = shared / "score" / "panel.py"
    if not path.is_file():
        pytest.skip(f"no {path}")
    spec = importlib.util.spec_from_file_location("panel", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_key(sheets):
    return json.loads(key_file(sheets).read_text())


def verdict_of(key, best_first, scores=None):
    """The verdict of a judge who ranks methods the same way on every sheet and by every criterion."""
    verdict = {}
    for sheet, entry in key.items():
        letters = {name: letter for letter, name in entry["order"].items()}
        order = [letters[name] for name in best_first]
        marks = {letters[name]: mark for name, mark in (scores or dict.fromkeys(best_first, 5)).items()}
        verdict[sheet] = dict.fromkeys(CRITERIA, order) | {"scores": marks}
    return verdict


def test_every_letter_stands_for_the_method_of_the_key_whole_and_in_part(sheets):
    key = read_key(sheets)
    assert sorted(path.name for path in sheets.glob("*.png")) == [f"sheet_0{i}.png" for i in range(4)]
    assert [entry["pair"] for entry in key.values()] == ["_stylized_".join(pair) for pair in PAIRS]
    assert len({tuple(entry["order"].values()) for entry in key.values()}) > 1
    for name, entry in key.items():
        sheet = load_image(sheets / f"{name}.png")
        assert tuple(sheet.shape) == (1, 3, 480 + 380 + 400, 3 * 760)
        for column, (letter, method) in enumerate(entry["order"].items()):
            assert letter == "ABC"[column]
            for row in (470, 800, 880, 1200):
                found = sheet[0, :, row, 760 * column + 300]
                assert torch.allclose(found, torch.tensor(COLORS[method]), atol=0.01)


def test_sheets_and_key_are_those_of_the_script(panel, sheets, material, tmp_path):
    methods = [f"{name}={material / name}" for name in COLORS]
    folders = {"content": material / "content", "style": material / "style", "output": tmp_path / "theirs"}
    panel.sheets(Namespace(methods=methods, seed=3, width=760, **folders))
    assert json.loads((tmp_path / "theirs_key.json").read_text()) == read_key(sheets)
    for path in sheets.glob("*.png"):
        difference = load_image(path) - load_image(tmp_path / "theirs" / path.name)
        assert difference.abs().max() < 0.01


def test_the_script_counts_our_verdicts_alike(panel, sheets, tmp_path, capsys):
    key = read_key(sheets)
    (tmp_path / "a.json").write_text(
        json.dumps(verdict_of(key, ["ours", "slow", "theirs"], {"ours": 7, "slow": 4, "theirs": 2}))
    )
    (tmp_path / "b.json").write_text(json.dumps(verdict_of(key, ["slow", "ours", "theirs"])))
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    panel.tally(Namespace(key=key_file(sheets), verdicts=files))
    told = capsys.readouterr().out
    counted = summarize_verdicts(sheets, files)
    for (winner, loser), (times, of) in counted.preferred.items():
        assert f"{winner} preferred to {loser}: {times} of {of}\n" in told
    for name, ranks in counted.ranks.items():
        numbers = [f"{counted.marks[name]:.2f}", str(counted.firsts[name]), *(f"{ranks[c]:.2f}" for c in CRITERIA)]
        assert [name, *numbers] in [line.split() for line in told.splitlines()]


def test_verdicts_are_counted_by_hand(sheets, tmp_path):
    key = read_key(sheets)
    one = verdict_of(key, ["ours", "theirs", "slow"], {"ours": 8, "theirs": 5, "slow": 2.5})
    other = verdict_of(key, ["theirs", "ours", "slow"], {"ours": 4, "theirs": 7, "slow": 0})
    del other["sheet_03"]
    for name, verdict in (("one", one), ("other", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(verdict))
    counted = summarize_verdicts(sheets, [tmp_path / "one.json", tmp_path / "other.json"])
    assert counted.ranks["ours"] == dict.fromkeys(CRITERIA, pytest.approx((4 * 1 + 3 * 2) / 7))
    assert counted.ranks["slow"] == dict.fromkeys(CRITERIA, 3)
    assert list(counted.ranks) == ["ours", "theirs", "slow"]
    assert counted.marks == pytest.approx({"ours": 44 / 7, "theirs": 41 / 7, "slow": 10 / 7})
    assert counted.firsts == {"ours": 4, "theirs": 3, "slow": 0}
    assert counted.preferred["ours", "theirs"] == (4, 7)
    assert counted.preferred["slow", "ours"] == (0, 7)
    assert counted.agreement == dict.fromkeys(CRITERIA, pytest.approx(2 / 3))  # two of three pairs of methods


def test_judges_are_compared_on_the_sheets_that_both_judged():
    def said(*order):
        return {criterion: list(order) for criterion in CRITERIA}

    judged = [
        {"a": said("x", "y"), "b": said("x", "y")},
        {"b": said("y", "x"), "c": said("x", "y")},
        {"a": said("x", "y")},
    ]
    assert agreement(judged) == dict.fromkeys(CRITERIA, 0.5)
    assert agreement(judged[:1]) == {}


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        (8, 10, (0.4901625, 0.9433178)),
        (0, 10, (0.0, 0.2775328)),
        (10, 10, (0.7224672, 1.0)),
        (1, 2, (0.0945312, 0.9054688)),
    ],
)
def test_wilson_interval_has_the_published_values(successes, trials, expected):
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=1e-6)


def test_verdicts_of_other_sheets_and_incomplete_ones_are_refused_by_file_and_sheet(sheets, tmp_path):
    whole = verdict_of(read_key(sheets), list(COLORS))["sheet_00"]
    path = tmp_path / "v.json"
    for wrong, named in (
        ({"sheet_09": whole}, "sheet_09"),
        ({"sheet_00": whole | {"style": ["A", "B"]}}, "style"),
        ({"sheet_00": whole | {"clean": ["A", "A", "B"]}}, "clean"),
        ({"sheet_00": whole | {"scores": {"A": 1, "B": 2}}}, "scores"),
        ({"sheet_00": whole | {"scores": {"A": 1, "B": 2, "C": 11}}}, "scores"),
        ({"sheet_00": {k: v for k, v in whole.items() if k != "content"}}, "content"),
        ({"sheet_00": ["A", "B"]}, "sheet_00"),
        ({}, "no sheet"),
        ([1], "JSON"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UsageError, match=named) as caught:
            summarize_verdicts(sheets, [path])
        assert "v.json" in str(caught.value)
    with pytest.raises(UsageError, match=r"nowhere_key\.json"):
        summarize_verdicts(tmp_path / "nowhere", [path])


def test_sheets_are_written_again_and_never_over_others(sheets, material, pairs):
    before = key_file(sheets).read_text()
    pictures = {method: {pair: material / method / f"{pair.name}.png" for pair in pairs} for method in COLORS}
    write_sheets(sheets, pairs, pictures, SETTINGS, seed=3)
    with pytest.raises(UsageError, match="name another folder"):
        write_sheets(sheets, pairs[:2], pictures, SETTINGS, seed=3)
    with pytest.raises(UsageError, match="methods, not 1"):
        write_sheets(sheets, pairs, {"ours": pictures["ours"], "none": {}}, SETTINGS, seed=3)
    with pytest.raises(UsageError, match="no pair"):
        write_sheets(sheets, pairs, {"a": {pairs[0]: material}, "b": {pairs[1]: material}}, SETTINGS, seed=3)
    assert key_file(sheets).read_text() == before


def test_a_person_judges_in_the_browser_and_the_verdict_is_counted(browser, sheets, tmp_path, capsys):
    key = read_key(sheets)
    wanted = verdict_of(key, ["slow", "ours", "theirs"], {"ours": 6, "theirs": 0, "slow": 7.5})
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto((sheets / "judge.html").as_uri())
    text = page.content()
    assert not any(method in text for method in COLORS)
    page.locator("#save").click()
    assert "No sheet" in page.locator("#told").inner_text()
    shown = []
    for number in range(4):
        name = page.locator("#sheet img").get_attribute("src").removesuffix(".png")
        assert page.evaluate("document.querySelector('#sheet img').decode().then(() => true)")
        shown.append(name)
        for criterion in CRITERIA:
            field = page.locator(f"#{criterion}")
            field.get_by_role("button", name="A", exact=True).click()
            field.get_by_role("button", name="A", exact=True).click()  # taken back
            for letter in wanted[name][criterion]:
                field.get_by_role("button", name=letter, exact=True).click()
            assert field.locator("output").inner_text() == " > ".join(wanted[name][criterion])
        for letter, mark in wanted[name]["scores"].items():
            page.locator("#scores label", has_text=letter).locator("input").fill(str(mark))
        if number == 1:
            page.reload()  # nothing is lost
            assert "2 judged" in page.locator("#position").inner_text()
        if number < 3:
            page.locator("#next").click()
    assert sorted(shown) == sorted(key)
    page.locator("#name").fill("Ann B.")
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "verdict_Ann_B_.json"
    download.value.save_as(tmp_path / "ann.json")
    context.close()
    assert json.loads((tmp_path / "ann.json").read_text()) == wanted
    out = tmp_path / "out"
    assert (
        main(["evaluate", "--output", str(out), "--sheets", str(sheets), "--verdicts", str(tmp_path / "ann.json")]) == 0
    )
    assert capsys.readouterr().out == (out / "verdicts.md").read_text()
    record = json.loads((out / "verdicts.json").read_text())
    assert record["firsts"] == {"slow": 4, "ours": 0, "theirs": 0}
    assert {"method": "slow", "to": "ours", "times": 4, "of": 4, "interval": list(wilson_interval(4, 4))} in record[
        "preferred"
    ]
    assert record["agreement"] == {}


def test_the_command_writes_sheets_of_what_it_compares(material, tmp_path):
    for name in ("ours", "slow"):
        for path in (material / name).glob("*.png"):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.open(path).resize((64, 64)).save(tmp_path / name / path.name)
    command = ["evaluate", "--content", str(material / "content"), "--style", str(material / "style"), "--size", "64"]
    command += ["--output", str(tmp_path / "out"), "--octaves", "--limit", "2", "--device", "cpu"]
    methods = ["--methods", str(tmp_path / "ours"), str(tmp_path / "slow")]
    assert main([*command, *methods, "--sheets", str(tmp_path / "blind")]) == 0
    assert len(list((tmp_path / "blind").glob("sheet_*.png"))) == 2
    assert (tmp_path / "blind" / "judge.html").is_file()
    for entry in json.loads((tmp_path / "blind_key.json").read_text()).values():
        assert sorted(entry["order"].values()) == ["ours", "slow"]
