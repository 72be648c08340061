"""Other people's models: tiny files of their formats, and functions."""

import numpy as np
import pytest
import torch

from arbitrary_nst.benchmark.candidates import LeftOut
from arbitrary_nst.benchmark.peers import Onnx, PythonCallable, TFLite, filled, is_picture, noise, only_side


def onnx_file(path, picture=(1, 3, "height", "width"), code=("batch", 4), output="picture"):
    """A network that adds up its code and puts the sum onto the picture, or gives the code back."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info("photo", TensorProto.FLOAT, picture),
            helper.make_tensor_value_info("style", TensorProto.FLOAT, code)]  # fmt: skip
    nodes = [
        helper.make_node("ReduceSum", ["style"], ["sum"], keepdims=0),
        helper.make_node("Add", ["photo", "sum"], ["picture"]),
        helper.make_node("Identity", ["style"], ["code"]),
    ]
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, picture if output == "picture" else code)
    graph = helper.make_graph(nodes, "peer", ends, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((1, 3, None, None), 32, (1, 3, 32, 32)),
        ((None, 24, 24, 3), 24, (1, 24, 24, 3)),
        ((None, 100), 32, (1, 100)),
        ((1, 1, 1, 100), 32, (1, 1, 1, 100)),
        ((), 32, ()),
    ],
)
def test_open_extents_are_filled_by_the_meaning_of_the_shape(shape, size, expected):
    assert filled(shape, size) == expected


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((1, 3, 24, 24), LeftOut, "runs at 24x24 only"),
        ((1, 24, 30, 3), LeftOut, "runs at 24x30 only"),
        ((8, 3, None, None), LeftOut, "batches of 8 only"),
        ((1, None), ValueError, r"\(1, None\): only batches and sides of pictures may be open"),
    ],
)
def test_what_cannot_be_filled_says_why(shape, error, message):
    with pytest.raises(error, match=message):
        filled(shape, 32)


def test_pictures_are_told_from_codes_and_the_only_side_of_a_network_is_found():
    assert is_picture((1, 3, None, None))
    assert is_picture((1, 384, 384, 3))
    assert not is_picture((1, 1, 1, 100))
    assert not is_picture((1, 3))
    assert only_side([(1, 1, 1, 100), (1, 384, 384, 3)]) == 384
    assert only_side([(1, 3, None, None), (1, 4)]) is None


def test_noise_has_the_type_that_is_asked_for():
    assert noise((2, 3), np.float16).dtype == np.float16
    assert set(noise((50,), np.uint8)) == {0, 1}


def test_an_onnx_file_that_paints_runs_at_any_size(tmp_path):
    pytest.importorskip("onnxruntime")
    peer = Onnx.opened(onnx_file(tmp_path / "adds.onnx"), threads=1, name="adds")
    assert (peer.tasks, peer.side) == (("stylize",), None)
    for size in (16, 40):
        picture = peer.prepare("stylize", size)()
        assert picture.shape == (1, 3, size, size)
        expected = noise((1, 3, size, size), np.float32) + noise((1, 4), np.float32).sum()
        np.testing.assert_allclose(picture, expected, rtol=1e-5)


def test_an_onnx_file_of_one_size_says_so_and_one_that_gives_a_code_encodes(tmp_path):
    pytest.importorskip("onnxruntime")
    small = Onnx.opened(onnx_file(tmp_path / "small.onnx", (1, 3, 24, 24)), threads=1, name="small")
    assert small.side == 24
    assert small.obstacle("stylize", 24) is None
    assert small.obstacle("stylize", 32) == "runs at 24x24 only"
    with pytest.raises(LeftOut, match="runs at 24x24 only"):
        small.prepare("stylize", 32)
    assert Onnx.opened(onnx_file(tmp_path / "code.onnx", output="code"), 1, "code").tasks == ("encode",)


def test_files_that_are_missing_are_named(tmp_path):
    for kind in (Onnx, TFLite):
        with pytest.raises(FileNotFoundError, match=r"gone\.file: no such file"):
            kind.opened(tmp_path / "gone.file", 1, "gone")


def test_a_real_tflite_network_paints_at_its_own_size(shared):
    pytest.importorskip("ai_edge_litert", reason="TFLite files need ai-edge-litert")
    path = shared / "peers" / "magenta_int8_transfer.tflite"
    peer = TFLite.opened(path, threads=1, name="magenta")
    assert (peer.tasks, peer.side) == (("stylize",), 384)
    assert peer.prepare("stylize", 384)().shape == (1, 384, 384, 3)
    with pytest.raises(LeftOut, match="runs at 384x384 only"):
        peer.prepare("stylize", 256)


def test_a_callable_is_given_a_photo_and_a_painting(tmp_path, monkeypatch):
    (tmp_path / "their_model.py").write_text(
        "seen = []\n"
        "def paint(photo, painting):\n    seen.append((photo, painting))\n    return photo\n"
        "def shrink(photo, painting):\n    return photo[..., ::2, ::2]\n"
    )
    monkeypatch.chdir(tmp_path)
    peer = PythonCallable.opened("their_model:paint")
    result = peer.prepare("stylize", 16)()
    import their_model  # pyright: ignore[reportMissingImports]

    photo, painting = their_model.seen[0]
    assert result is photo
    assert photo.shape == painting.shape == (1, 3, 16, 16)
    assert photo.dtype == torch.float32
    assert not torch.equal(photo, painting)
    with pytest.raises(ValueError, match=r"gave no picture of 16x16 pixels, but \(1, 3, 8, 8\)"):
        PythonCallable.opened("their_model:shrink").prepare("stylize", 16)()
    with pytest.raises(ValueError, match="their_model has no callable 'seen'"):
        PythonCallable.opened("their_model:seen")
