"""Networks: sizes counted by hand, laws of the weights, what features and head are."""

import copy
import math
import pickle

import pytest
import torch
from torch.nn.functional import cross_entropy

from lib.coresets import MLP, LeNet, ResNet18

SHAPES = {MLP: (8, 8), LeNet: (1, 28, 28), ResNet18: (3, 32, 32)}


def size(network):
    return sum(weight.numel() for weight in network.parameters())


def images(kind, n, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((n, *SHAPES[kind]), generator=generator, dtype=dtype)


def test_the_lenet_has_the_layers_of_a_convolution_without_padding():
    convolutions = 6 * (1 * 5**2 + 1) + 16 * (6 * 5**2 + 1)
    linear = 120 * (16 * 4**2 + 1) + 84 * (120 + 1) + 10 * (84 + 1)
    assert size(LeNet(generator=0)) == convolutions + linear == 44_426


def test_the_resnet_has_the_layers_of_the_paper():
    def block(inputs, outputs):
        convolutions = 9 * outputs * (inputs + outputs)
        shortcut = inputs * outputs + 2 * outputs if inputs != outputs else 0
        return convolutions + 4 * outputs + shortcut

    maps = [64, 64, 128, 256, 512]
    blocks = sum(
        block(a, b) + block(b, b) for a, b in zip(maps, maps[1:], strict=False)
    )
    stem, head = 3 * 9 * 64 + 2 * 64, 513 * 10
    model = ResNet18(generator=0).eval()
    assert size(model) == stem + blocks + head
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in layers) + 1 == 18
    with torch.no_grad():
        maps = model.blocks(model.bn(model.conv(images(ResNet18, 1))).relu())
    assert maps.shape == (1, 512, 4, 4)


def test_a_residual_block_adds_its_input():
    block = ResNet18(generator=0).eval().blocks[1]
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.nn.init.zeros_(block.bn2.weight)
    torch.testing.assert_close(block(x), x.relu())


@pytest.mark.parametrize("hidden", [(), (7,), (9, 5)])
def test_the_mlp_has_the_widths_it_was_given(hidden):
    widths = [12, *hidden, 4]
    model = MLP(12, hidden, 4, generator=0)
    expected = sum((a + 1) * b for a, b in zip(widths, widths[1:], strict=False))
    assert size(model) == expected
    x = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(1))
    assert model.features(x).shape == (3, widths[-2])
    if not hidden:
        torch.testing.assert_close(model.features(x), x.flatten(1))


@pytest.mark.parametrize("kind", SHAPES)
def test_logits_are_the_head_of_non_negative_features(kind):
    model = kind(generator=0).eval()
    x = images(kind, 3)
    with torch.no_grad():
        features = model.features(x)
        torch.testing.assert_close(model(x), model.head(features))
    assert features.shape == (3, model.head.in_features)
    assert features.min() >= 0
    assert features.max() > 0


@pytest.mark.parametrize("kind", SHAPES)
def test_the_last_gradient_is_an_outer_product(kind):
    model = kind(generator=0).double().eval()
    x, y = images(kind, 2, dtype=torch.float64), torch.tensor([3, 7])
    cross_entropy(model(x), y, reduction="sum").backward()
    with torch.no_grad():
        h = model.features(x)
        p = torch.softmax(model.head(h), 1) - torch.eye(10, dtype=h.dtype)[y]
    torch.testing.assert_close(model.head.weight.grad, p.T @ h)
    torch.testing.assert_close(model.head.bias.grad, p.sum(0))


@pytest.mark.parametrize("kind", SHAPES)
def test_weights_come_from_the_generator_alone(kind):
    state = torch.get_rng_state()
    a, b, c, d = (kind(generator=seed) for seed in (3, 3, 4, None))
    assert torch.equal(torch.get_rng_state(), state)
    for one, two in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(one, two)
    for other in (c, d):
        assert not torch.equal(a.head.weight, other.head.weight)
    goes_on = torch.Generator().manual_seed(0)
    one, two = kind(generator=goes_on), kind(generator=goes_on)
    assert not torch.equal(one.head.weight, two.head.weight)


@pytest.mark.parametrize("kind", SHAPES)
def test_weights_follow_torchs_law(kind):
    for layer in kind(generator=0).modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            w = layer.weight.detach()
            bound = 1 / math.sqrt(w[0].numel())
            assert w.abs().max() <= bound
            assert w.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)


@pytest.mark.parametrize("kind", SHAPES)
def test_networks_can_be_copied_and_pickled(kind):
    model = kind(generator=0).eval()
    x = images(kind, 2)
    with torch.no_grad():
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), model(x))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: MLP(0), ValueError, "n_features .* >= 1, got 0"),
        (lambda: MLP(64, 64), TypeError, "hidden must be a tuple .* got 64"),
        (lambda: MLP(64, (8, 0)), ValueError, "width in hidden .* got 0"),
        (lambda: LeNet(1), ValueError, "n_classes .* >= 2, got 1"),
        (lambda: LeNet(generator="a"), TypeError, "generator must be .* got 'a'"),
        (lambda: ResNet18(2.5), TypeError, "n_classes .* got 2.5"),
        (lambda: ResNet18(channels=0), ValueError, "channels .* got 0"),
        (lambda: MLP(generator=-1), ValueError, "got -1"),
    ],
)
def test_bad_sizes_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()
