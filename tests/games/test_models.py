"""Networks: sizes, laws of the initial weights, randomness, critics."""

import copy
import math
import pickle

import pytest
import torch

from lib.games import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    digits_networks,
    ring_networks,
)

KINDS = [MLPGenerator, MLPDiscriminator, DCGANGenerator, DCGANDiscriminator]


def size(network):
    return sum(weight.numel() for weight in network.parameters())


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def convolution(inputs, outputs, kernel=3):
    return outputs * (inputs * kernel**2 + 1)


# The architectures of the report, counted by hand.


def test_the_mlp_has_the_widths_of_the_report():
    widths = [100, 128, 256, 512, 1024, 784]
    linear = sum((a + 1) * b for a, b in zip(widths, widths[1:], strict=False))
    normalised = 2 * (256 + 512 + 1024)
    assert size(MLPGenerator(generator=0)) == linear + normalised
    assert size(MLPDiscriminator(generator=0)) == 785 * 512 + 513 * 256 + 257


@pytest.mark.parametrize("img_size", [28, 32])
def test_the_dcgan_has_the_maps_of_the_report(img_size):
    side = img_size // 4
    G, D = (net(img_size, generator=0) for net in (DCGANGenerator, DCGANDiscriminator))
    convolutions = sum(convolution(*io) for io in [(128, 128), (128, 64), (64, 1)])
    assert size(G) == 101 * 128 * side**2 + convolutions + 2 * (128 + 128 + 64)
    convolutions = sum(convolution(*io) for io in [(1, 16), (16, 32), (32, 64)])
    # four halvings of 28 or 32, rounded up, leave 2 x 2 pixels
    rest = convolution(64, 128) + 2 * (32 + 64 + 128) + 128 * 4 + 1
    assert size(D) == convolutions + rest
    image = G(noise(3, 100))
    assert image.shape == (3, 1, img_size, img_size)
    assert abs(image).max() <= 1
    assert D(image).shape == (3,)


@pytest.mark.parametrize("options", [{"bn_eps": 0.8}, {}])
def test_the_quirk_of_batch_normalisation_is_a_choice(options):
    for kind in (MLPGenerator, DCGANGenerator, DCGANDiscriminator):
        network = kind(generator=0, **options)
        found = {
            layer.eps
            for layer in network.modules()
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
        }
        assert options.get("bn_eps", 1e-5) in found
        assert found <= {options.get("bn_eps", 1e-5), 1e-5}


def test_small_networks():
    G, D = ring_networks(generator=0)
    assert D(G(noise(7, G.latent_dim))).shape == (7,)
    assert G.out_shape == (2,)
    assert abs(G(100 * noise(50, G.latent_dim))).max() > 1  # not squeezed
    G, D = digits_networks(generator=0)
    image = G(noise(7, G.latent_dim))
    assert image.shape == (7, 1, 8, 8) and abs(image).max() <= 1
    assert D(image).shape == (7,)


# Initial weights


def test_linear_layers_have_torchs_law():
    layer = MLPDiscriminator((100,), (2000,), generator=0).layers[1]
    bound = 1 / math.sqrt(100)
    weights = layer.weight.detach().flatten().double()
    assert abs(weights).max() <= bound < 1.001 * abs(weights).max()
    # mean and variance of a uniform law, within 5 standard errors
    n = weights.numel()
    assert abs(weights.mean()) < 5 * bound / math.sqrt(3 * n)
    excess = weights.square() - bound**2 / 3
    assert abs(excess.mean()) < 5 * excess.std() / math.sqrt(n)
    torch.manual_seed(0)
    theirs = torch.nn.Linear(100, 2000).weight.detach().double()
    assert weights.std() == pytest.approx(theirs.std().item(), rel=0.01)


def test_convolutions_have_the_papers_law():
    for network in (DCGANGenerator(generator=0), DCGANDiscriminator(generator=0)):
        drawn = [
            layer.weight.detach().flatten()
            for layer in network.modules()
            if isinstance(layer, torch.nn.Conv2d)
        ]
        drawn = torch.cat(drawn).double()
        n = drawn.numel()
        assert abs(drawn.mean()) < 5 * 0.02 / math.sqrt(n)
        assert drawn.std().item() == pytest.approx(0.02, rel=5 / math.sqrt(2 * n))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_from_the_generator_alone(kind):
    before = torch.get_rng_state()
    a, b, other = kind(generator=3), kind(generator=3), kind(generator=4)
    free, fresh = kind(), kind()
    assert torch.equal(torch.get_rng_state(), before)
    first = [next(net.parameters()) for net in (a, b, other, free, fresh)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(first[3], first[4])


def test_one_stream_gives_two_networks():
    stream = torch.Generator().manual_seed(0)
    a, b = (MLPDiscriminator(generator=stream) for _ in range(2))
    assert not torch.equal(next(a.parameters()), next(b.parameters()))


# Dropout with a memory of its own


def test_dropout_is_unbiased_and_drops_whole_maps():
    D = DCGANDiscriminator(28, generator=0)
    drop = next(m for m in D.modules() if type(m).__name__ == "_MapDropout")
    x = torch.ones(400, 16, 3, 3, dtype=torch.float64)
    y = drop(x)
    assert torch.equal(y, y[..., :1, :1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, 1 / 0.75}
    # a binomial count of the kept maps, within 5 standard errors
    kept = (y[..., 0, 0] > 0).double().mean().item()
    assert abs(kept - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 6400)
    assert not torch.equal(drop(x), y)
    drop.eval()
    assert torch.equal(drop(x), x)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda D: pickle.loads(pickle.dumps(D))]
)
def test_dropout_goes_on_where_its_state_was_taken(duplicate, tmp_path):
    before = torch.get_rng_state()
    D, x = DCGANDiscriminator(28, generator=0), noise(5, 1, 28, 28)
    D(x)
    twin = duplicate(D)
    torch.save(D.state_dict(), tmp_path / "D.pt")
    expected = [D(x), D(x)]
    assert not torch.equal(*expected)
    assert torch.equal(twin(x), expected[0])
    other = DCGANDiscriminator(28, generator=9)
    other.load_state_dict(torch.load(tmp_path / "D.pt", weights_only=True))
    assert torch.equal(other(x), expected[0])
    assert torch.equal(torch.get_rng_state(), before)


# Critics


def test_a_critic_scores_each_image_alone():
    x = noise(6, 1, 28, 28)
    for critic in (True, False):
        D = DCGANDiscriminator(28, critic=critic, generator=0).double()
        D.train()
        alone = torch.stack([D(one[None])[0] for one in x.double()])
        assert torch.allclose(D(x.double()), alone) is critic


def test_gradients_flow_twice_through_both_players(device):
    # what consensus optimisation needs: no rectifier works in place
    for G, D in [
        (DCGANGenerator(28, generator=0), DCGANDiscriminator(28, generator=0)),
        ring_networks(generator=0),
    ]:
        G, D = G.double().to(device), D.double().to(device)
        z = noise(4, G.latent_dim).double().to(device)
        loss = D(G(z)).square().mean()
        weights = [*G.parameters(), *D.parameters()]
        first = torch.autograd.grad(loss, weights, create_graph=True)
        norm = sum(g.square().sum() for g in first)
        second = torch.autograd.grad(norm, weights, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in second)


# What is refused


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: MLPGenerator(latent_dim=0), ValueError, "latent_dim .* got 0"),
        (lambda: MLPGenerator(latent_dim=2.5), TypeError, "latent_dim .* got 2.5"),
        (lambda: MLPGenerator(hidden=()), ValueError, "hidden .* got"),
        (lambda: MLPGenerator(hidden=(3, -1)), ValueError, "hidden .* got -1"),
        (lambda: MLPGenerator(bn_eps=0.0), ValueError, "bn_eps .* got 0.0"),
        (lambda: MLPGenerator(slope=-0.2), ValueError, "slope .* got -0.2"),
        (lambda: MLPGenerator(out_shape=(1, 0)), ValueError, "out_shape .* got 0"),
        (lambda: MLPGenerator(generator="x"), TypeError, "generator .* got 'x'"),
        (lambda: MLPGenerator(generator=-1), ValueError, "got -1"),
        (lambda: MLPDiscriminator(hidden=[0]), ValueError, "hidden .* got 0"),
        (lambda: DCGANGenerator(30), ValueError, "img_size .* got 30"),
        (lambda: DCGANGenerator(channels=0), ValueError, "channels .* got 0"),
        (lambda: DCGANDiscriminator(30), ValueError, "img_size .* got 30"),
        (lambda: DCGANDiscriminator(dropout=1.0), ValueError, "dropout .* got 1.0"),
    ],
)
def test_bad_arguments_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()
