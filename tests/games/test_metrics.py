"""Scores of generated samples: closed forms, peers, and the traps they hold."""

import functools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from lib import data
from lib.games import (
    PRDC,
    ClassifierScorer,
    fid,
    inception_score,
    inception_v3,
    kid,
    mode_coverage,
    nearest_mode,
    prdc,
)


def clouds():
    rng = np.random.default_rng(2024)
    real = rng.standard_normal((240, 6))
    return real, 0.8 * rng.standard_normal((200, 6)) + np.linspace(-0.5, 0.5, 6)


def probabilities():
    p = np.exp(3 * np.random.default_rng(7).standard_normal((500, 10)))
    return p / p.sum(axis=1, keepdims=True)


def digits(split):
    X, y = data.load("digits", split)
    return 2 * X.astype(np.float64) - 1, y


@functools.cache
def scorer():
    return ClassifierScorer(epochs=20, generator=0).fit(*digits("train"))


# What torchmetrics 1.9.0 and prdc 0.2 give for the same features. Its inception score
# was handed logits in the order that ours deals them in, and divides the variance over
# parts by 9 instead of 10.
PEERS = {
    "fid": 0.9919949644341965,
    "kid": 0.31498305249996816,
    "is": 3.922287017478984,
    "is_10": (3.7532678864559834, 0.18516594032947972 * np.sqrt(0.9)),
    "prdc": (0.945, 0.7, 1.281, 0.9),
}


def test_scores_agree_with_their_peers(record_property):
    (real, fake), p = clouds(), probabilities()
    ours = [
        fid(real, fake),
        kid(real[:200], fake),
        inception_score(p, splits=1)[0],
        *inception_score(p),
        *prdc(real, fake),
    ]
    theirs = [PEERS["fid"], PEERS["kid"], PEERS["is"], *PEERS["is_10"], *PEERS["prdc"]]
    gap = np.max(np.abs(np.array(ours) / theirs - 1))
    record_property("value", float(gap))
    record_property("trials", int(len(ours)))
    assert gap < 1e-10


def test_torchmetrics_live():
    image = pytest.importorskip("torchmetrics.image")

    class Same(torch.nn.Module):
        num_features = 6

        def forward(self, x):
            return x.flatten(1)

    real, fake = clouds()
    options = {"feature": Same(), "normalize": True}
    theirs = image.FrechetInceptionDistance(input_img_size=(1, 1, 6), **options)
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(real), real=True)
    theirs.update(torch.from_numpy(fake), real=False)
    assert theirs.compute().item() == pytest.approx(fid(real, fake), rel=1e-8)


# Inception score


def test_inception_score_of_the_extremes():
    one_hot, even = np.eye(10), np.full((50, 10), 0.1)
    assert inception_score(one_hot, splits=1)[0] == pytest.approx(10, rel=1e-12)
    assert inception_score(even)[0] == pytest.approx(1, rel=1e-12)
    # confident, and always in the same class
    assert inception_score(np.eye(10)[np.zeros(50, int)])[0] == pytest.approx(1)


@given(st.integers(0, 10**6), st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_inception_score_is_the_exponential_of_the_mutual_information(seed, classes):
    p = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), 40)
    mean, std = inception_score(p, splits=1)

    def entropy(q):
        return -np.sum(np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0), axis=-1)

    information = entropy(p.mean(axis=0)) - entropy(p).mean()
    assert mean == pytest.approx(np.exp(information), rel=1e-9)
    assert std == 0 and 1 - 1e-12 <= mean <= classes + 1e-9


def test_sorted_samples_do_not_score_one():
    # one class a part, if parts were cut from the array as it lies
    p = np.repeat(np.eye(10), 50, axis=0)
    apart = [inception_score(part, splits=1)[0] for part in np.split(p, 10)]
    assert apart == pytest.approx(np.ones(10))
    mean, _ = inception_score(p)
    assert mean > 9


def test_confident_garbage_is_rewarded():
    # black and white noise: the classifier never saw such an image and is confident,
    # and the score prefers it to three perfect digits
    rng = np.random.default_rng(0)
    noise = rng.choice([-1.0, 1.0], (500, 1, 8, 8))
    p = scorer().predict_proba(noise)
    assert np.median(p.max(axis=1)) > 0.6
    x, y = digits("test")
    perfect = inception_score(x[y < 3], scorer(), splits=1)[0]
    assert 2.5 < perfect < inception_score(p, splits=1)[0]
    # what exposes it
    real, bad = scorer().features(x), scorer().features(noise)
    assert prdc(real, bad).coverage < 0.2
    assert fid(real, bad) > 10 * fid(real, scorer().features(digits("train")[0]))


# Frechet distance


@given(st.integers(0, 10**6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_fid_is_the_formula_with_a_matrix_root(seed, d):
    rng = np.random.default_rng(seed)
    x, y = (
        rng.standard_normal((40, d)) @ rng.standard_normal((d, d)) + rng.normal(size=d)
        for _ in range(2)
    )
    c1, c2 = (np.atleast_2d(np.cov(a.T)) for a in (x, y))
    root = np.real(sqrtm(c1 @ c2))
    shift = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    expected = shift + np.trace(c1 + c2 - 2 * root)
    # roots of nearly singular covariances keep half the digits
    scale = np.trace(c1 + c2)
    assert fid(x, y) == pytest.approx(expected, abs=1e-6 * scale)
    assert fid(x, y) == pytest.approx(fid(y, x), abs=1e-7 * scale)
    assert fid(x, x) == pytest.approx(0, abs=1e-7 * scale)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    assert fid(x @ turn, y @ turn) == pytest.approx(fid(x, y), abs=1e-6 * scale)


def test_fid_of_diagonal_normals_is_the_closed_form():
    # white data of exactly zero mean and unit covariance, then scaled
    x = np.random.default_rng(0).standard_normal((100, 3))
    x = x - x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    s, t, shift = np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.0, 1.0]), 0.7
    expected = 3 * shift**2 + np.sum((s - t) ** 2)
    assert fid(x * s, x * t + shift) == pytest.approx(expected, rel=1e-12)


def test_fid_is_real_for_singular_covariances():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 2)) @ rng.standard_normal((2, 8))
    y = rng.standard_normal((50, 2)) @ rng.standard_normal((2, 8))
    distance = fid(x, y)
    assert isinstance(distance, float) and np.isfinite(distance) and distance >= 0
    # a matrix root by Schur's method is complex here: the trap that eigh avoids
    assert np.abs(np.imag(sqrtm(np.cov(x.T) @ np.cov(y.T)))).max() > 0


def test_fid_needs_more_samples_than_features():
    x = np.random.default_rng(0).standard_normal((2, 30, 40))
    with pytest.warns(UserWarning, match="mostly bias"):
        biased = fid(*x)
    many = np.random.default_rng(0).standard_normal((2, 4000, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fid(*many) < biased / 20


def test_halves_must_be_random_halves():
    # halves of a sorted data set differ although the data set does not
    x, y = digits("train")
    features = scorer().features(x[np.argsort(y, kind="stable")])
    half = len(features) // 2
    in_order = fid(features[:half], features[half:])
    dealt = features[np.random.default_rng(0).permutation(len(features))]
    assert fid(dealt[:half], dealt[half:]) < in_order / 50


# Kernel distance


def test_kid_is_the_unbiased_estimate():
    (x, y), d = clouds(), 6
    x, y = x[:30], y[:20]

    def k(a, b):
        return (a @ b / d + 1) ** 3

    within_x = np.mean(
        [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    )
    within_y = np.mean(
        [k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    )
    expected = within_x + within_y - 2 * np.mean([k(a, b) for a in x for b in y])
    assert kid(x, y) == pytest.approx(expected, rel=1e-12)


def test_kid_has_no_bias():
    # 400 pairs of samples of one distribution: zero within four standard errors
    rng = np.random.default_rng(0)
    found = [kid(*rng.standard_normal((2, 20, 3))) for _ in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 20
    assert min(found) < 0 < max(found)


def test_kid_of_raw_features_is_all_variance():
    x, y = digits("train")[0], digits("test")[0]
    a, b = scorer().features(x), scorer().features(y)
    assert np.mean(a**2) == pytest.approx(1, rel=1e-9)
    raw = scorer().scale_
    assert raw > 2
    # the cube of the squared scale multiplies what ought to be zero
    assert abs(kid(a, b)) < 0.02
    assert abs(kid(raw * a, raw * b)) > 10 * abs(kid(a, b))


# Precision, recall, density, coverage


def test_prdc_against_all_pairs():
    real, fake = (x[:40] for x in clouds())
    k = 3

    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))

    r_real = np.sort(distances(real, real), axis=1)[:, k]
    r_fake = np.sort(distances(fake, fake), axis=1)[:, k]
    inside = distances(real, fake) < r_real[:, None]
    expected = PRDC(
        inside.any(axis=0).mean(),
        (distances(real, fake) < r_fake).any(axis=1).mean(),
        inside.sum() / (k * len(fake)),
        inside.any(axis=1).mean(),
    )
    assert prdc(real, fake, k) == pytest.approx(expected, rel=1e-12)


def test_prdc_does_not_depend_on_the_blocks(monkeypatch):
    whole = prdc(*clouds()), kid(*clouds())
    monkeypatch.setattr("lib.games.metrics.ROWS", 7)
    assert prdc(*clouds()) == whole[0]
    assert kid(*clouds()) == pytest.approx(whole[1], rel=1e-12)


def test_a_constant_blob_has_full_precision():
    real, _ = digits("train")
    blob = np.repeat(real[:1], 300, axis=0)
    found = prdc(scorer().features(real), scorer().features(blob))
    assert found.precision == 1 and found.recall == 0
    assert found.coverage < 0.05


def test_prdc_of_the_data_themselves():
    real, _ = clouds()
    found = prdc(real, real)
    assert found.precision == found.recall == found.coverage == 1


# Modes


def test_modes_are_counted_by_their_share():
    centers = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    x = np.concatenate([centers[:2].repeat(50, axis=0), [[0.0, 3.8]], [[9.0, 9.0]]])
    labels = nearest_mode(x, centers, 0.5)
    np.testing.assert_array_equal(labels, [0] * 50 + [1] * 50 + [2, -1])
    # one point of 102 is less than a tenth of a third
    assert mode_coverage(labels, 3) == 2
    assert mode_coverage(labels, 3, min_share=0.02) == 3
    assert mode_coverage([-1, -1], 3) == 0


# The classifier


def test_the_scorer_knows_its_digits():
    x, y = digits("test")
    p = scorer().predict_proba(x)
    assert scorer().score(x, y) > 0.95
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    assert scorer().features(x).shape == (500, 32)
    assert inception_score(x, scorer(), splits=1)[0] > 9


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_scorers_are_reproducible_and_travel_by_file(network, tmp_path):
    x, y = (part[:200] for part in digits("train"))
    before = torch.get_rng_state()
    a, b = (
        ClassifierScorer(network, epochs=2, n_features=8, generator=0).fit(x, y)
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(a.predict_proba(x), b.predict_proba(x))
    a.save(tmp_path / "scorer.pt")
    read = ClassifierScorer.load(tmp_path / "scorer.pt")
    np.testing.assert_array_equal(a.predict_proba(x), read.predict_proba(x))
    np.testing.assert_array_equal(a.features(x), read.features(x))


def test_scores_take_numpy_and_torch(backend):
    real, fake = (backend.asarray(x) for x in clouds())
    assert fid(real, fake) == pytest.approx(PEERS["fid"], rel=1e-9)
    assert prdc(real, fake) == pytest.approx(PEERS["prdc"], rel=1e-9)
    assert kid(real[:200], fake) == pytest.approx(PEERS["kid"], rel=1e-9)
    p = backend.asarray(probabilities())
    assert inception_score(p)[0] == pytest.approx(PEERS["is_10"][0], rel=1e-9)
    x = backend.asarray(digits("test")[0][:20])
    for out in (scorer().predict_proba(x), scorer().features(x)):
        assert backend.owns(out, "float64")


# Inception v3


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights of Inception v3 at"):
        inception_v3(tmp_path / "weights.pth")


@pytest.mark.slow
def test_inception_v3_reads_its_weights_from_a_file(tmp_path):
    from torchvision.models import inception_v3 as architecture

    network = architecture(weights=None, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    found = inception_v3(tmp_path / "weights.pth")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 1, 28, 28)).astype(np.float32)
    p, f = found.predict_proba(x), found.features(x)
    assert p.shape == (2, 1000) and f.shape == (2, 2048)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    # probabilities are those of the network on the enlarged image
    big = torch.nn.functional.interpolate(
        torch.from_numpy(x).expand(-1, 3, -1, -1),
        (299, 299),
        mode="bilinear",
        antialias=True,
    )
    with torch.no_grad():
        logits = network.eval()(big)
    np.testing.assert_allclose(p, logits.softmax(dim=1).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match=r"\[-1, 1\] .* up to 255"):
        found.features(np.full((1, 3, 8, 8), 255.0))


# What is refused


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: inception_score(np.eye(3)), ValueError, "splits=10 rows, got 3"),
        (lambda: inception_score(np.eye(3), splits=0), ValueError, "splits .* got 0"),
        (lambda: inception_score(2 * np.eye(3), splits=1), ValueError, "probabilities"),
        (lambda: inception_score(-np.eye(3), splits=1), ValueError, "probabilities"),
        (
            lambda: inception_score([[np.nan]], splits=1),
            ValueError,
            "p must hold finite",
        ),
        (lambda: fid(np.eye(3), np.eye(2)), ValueError, "columns, got 3 and 2"),
        (lambda: fid(np.eye(3)[:1], np.eye(3)), ValueError, "real .* two rows, got 1"),
        (lambda: fid(np.eye(3), np.eye(3) / 0), ValueError, "fake must hold finite"),
        (lambda: kid(np.eye(3), np.eye(3), degree=0), ValueError, "degree .* got 0"),
        (lambda: prdc(np.eye(3), np.eye(3)), ValueError, "k=5 rows, got 3 and 3"),
        (lambda: prdc(np.eye(3), np.eye(3), 0), ValueError, "k must .* got 0"),
        (lambda: nearest_mode([[0.0]], [[0.0]], 0), ValueError, "radius .* got 0"),
        (lambda: nearest_mode([[0.0]], [[0.0, 1.0]], 1), ValueError, "1 columns of x"),
        (lambda: mode_coverage([3], 3), ValueError, "got 3 to 3"),
        (lambda: mode_coverage([0.5], 3), TypeError, "labels must be integers"),
        (lambda: mode_coverage(np.array([], int), 3), ValueError, "not empty"),
        (lambda: ClassifierScorer("rnn"), ValueError, "network .* got 'rnn'"),
        (lambda: ClassifierScorer(epochs=0), ValueError, "epochs .* got 0"),
        (
            lambda: ClassifierScorer().features(np.zeros((1, 1, 8, 8))),
            ValueError,
            "fitted",
        ),
        (
            lambda: scorer().features(np.zeros((1, 1, 9, 8))),
            ValueError,
            r"got \(1, 9, 8\)",
        ),
        (
            lambda: ClassifierScorer().fit(np.zeros((4, 1, 8, 8)), [0.5] * 4),
            TypeError,
            "y must hold integers",
        ),
        (
            lambda: ClassifierScorer().fit(np.zeros((4, 1, 8, 8)), [0, 1]),
            ValueError,
            "y must hold 4 classes",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
