"""Counting of a computation's work, on layers whose work is known."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from arbitrary_nst.benchmark import limits
from arbitrary_nst.benchmark.limits import Work, matrix_product, work_of
from arbitrary_nst.models.light import TOKENS
from arbitrary_nst.stylization.stylizer import Stylizer

IMAGE = torch.rand(1, 3, 10, 12)
NUMBERS = IMAGE.numel()


@pytest.mark.parametrize("inference", [True, False])
def test_a_convolution_multiplies_adds_and_moves_what_its_formula_says(inference):
    convolution = nn.Conv2d(3, 5, 3).requires_grad_(False)
    with torch.inference_mode(inference):
        assert work_of(lambda: convolution(IMAGE)) == Work(
            flops=2 * (3 * 3 * 3) * 5 * (8 * 10), moved=4 * (NUMBERS + 5 * 27 + 5 + 5 * 80)
        )


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize(
    ("operation", "moved"),
    [
        (torch.relu, 8 * NUMBERS),
        (lambda x: x.clone().relu_(), 16 * NUMBERS),
        (lambda x: x.to(torch.bfloat16), 6 * NUMBERS),
        (lambda x: x.transpose(2, 3)[:, :1].flatten(1).view(-1), 4 * 120 * 2),  # flattening a transposed one copies
        (lambda x: x[:, :1].view(-1), 0),
        (torch.empty_like, 0),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), 4 * (NUMBERS + 3 * 12 * 14)),
    ],
)
def test_operations_move_what_they_are_given_and_give_back_and_views_nothing(inference, operation, moved):
    with torch.inference_mode(inference):
        assert work_of(lambda: operation(IMAGE)) == Work(flops=0, moved=moved)


def test_the_network_s_operations_are_those_of_its_layers(light_model):
    """Counted once more by hooks: two operations a weight, at every position of a layer's output."""
    model, counted = deepcopy(light_model), []

    def count(layer, inputs, output):
        positions = output.numel() // layer.weight.shape[0]
        counted.append(2 * layer.weight.numel() * positions)

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    stylizer = Stylizer(model, "cpu", "float32")
    photo, code = torch.rand(1, 3, 64, 64), torch.zeros(1, model.code_size)
    mixing = 2 * TOKENS[0] * TOKENS[1] * 8 * 8  # the tokens of every place in the trunk
    assert work_of(lambda: stylizer(photo, code)).flops == sum(counted) + mixing > mixing


def test_the_limits_compute_and_count_what_they_say(monkeypatch):
    monkeypatch.setattr(limits, "SIDES", {"cpu": 8})
    monkeypatch.setattr(limits, "COPIED", 64)
    cpu = torch.device("cpu")
    product, flops = matrix_product(cpu, torch.bfloat16)
    assert flops == work_of(product).flops == 2 * 8**3
    assert product() == pytest.approx(1 / 8)
    copied, moved = limits.copy(cpu)
    assert copied() == 1
    assert moved == 2 * 64
