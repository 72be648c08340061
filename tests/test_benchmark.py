"""The benchmark's arithmetic, and its command on a tiny picture."""

import json

import pytest

from arbitrary_nst import benchmark
from arbitrary_nst.benchmark import BenchmarkConfig, alternate, markdown
from arbitrary_nst.cli import main
from arbitrary_nst.models.files import save_model


def test_candidates_take_turns_and_the_median_leaves_out_the_warmup(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now[0])

    def candidate(name, seconds):
        durations = iter(seconds)

        def paint():
            calls.append(name)
            now[0] += next(durations)

        return paint

    medians = alternate({"a": candidate("a", [9, 1, 5, 3]), "b": candidate("b", [9, 2, 2, 8])}, rounds=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert medians == {"a": 3000.0, "b": 2000.0}


def test_the_table_has_a_dash_where_a_candidate_does_not_run():
    assert markdown({"ours": {256: 1.25, 384: 2.0}, "peer": {384: 80.04}}, [256, 384]) == (
        "| ms | 256 | 384 |\n|---|---|---|\n| ours | 1.2 | 2.0 |\n| peer | - | 80.0 |"
    )


@pytest.mark.parametrize("change", [{"sizes": ()}, {"sizes": (0,)}, {"rounds": 0}, {"threads": 0}])
def test_options_out_of_range_are_refused_by_name(change):
    with pytest.raises(ValueError, match=f"--{next(iter(change))}"):
        BenchmarkConfig(**change)


def test_the_command_measures_every_size_and_writes_its_record(light_model, tmp_path, capsys):
    save_model(light_model, "light", tmp_path / "random.safetensors")
    options = ["--model", str(tmp_path / "random.safetensors"), "--sizes", "16", "24", "--rounds", "1"]
    output = tmp_path / "new" / "speed.json"
    assert main(["benchmark", *options, "--device", "cpu", "--output", str(output)]) == 0
    assert "| ms | 16 | 24 |" in capsys.readouterr().out
    record = json.loads(output.read_text())
    assert record["machine"]["threads"] == 2
    assert len(record["milliseconds"]) == 2
    assert all(set(row) == {"16", "24"} and min(row.values()) > 0 for row in record["milliseconds"].values())
