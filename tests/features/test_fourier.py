"""Random Fourier features: bias, variance, sampling schemes and contracts."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from lib.features import (
    KERNELS,
    RandomFourierFeatures,
    approximation_error,
    fourier,
    kernel_matrix,
    rff_variance,
    spectral_sample,
)

RADIAL = ("gaussian", "matern", "rational_quadratic")
SCHEMES = (
    [(kernel, "iid") for kernel in KERNELS]
    + [(kernel, "qmc") for kernel in KERNELS]
    + [(kernel, "orthogonal") for kernel in RADIAL]
)
PATHS = ["half_angle", "torch"]


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Both ways to the cosines of numpy input, whichever this machine prefers."""
    monkeypatch.setattr(
        fourier, "_tangent_is_fast", lambda: request.param == "half_angle"
    )
    return request.param


def points(n=12, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def two_points(delta=(0.6, -0.5, 0.3)):
    x = np.array([0.4, -1.1, 0.7])[: len(delta)]
    return np.stack([x, x + np.array(delta)])


def estimates(repeats, **options):
    """Estimate k(x, y) with independent maps; one number a map."""
    X = two_points()
    rng = np.random.default_rng(123)
    out = []
    for _ in range(repeats):
        Z = RandomFourierFeatures(random_state=rng, **options).fit(X).transform(X)
        out.append(Z[0] @ Z[1])
    return np.array(out)


def kernel_at(kernel, gamma, factor=1.0):
    X = factor * two_points()
    return kernel_matrix(X[:1], X[1:], kernel=kernel, gamma=gamma).item()


# Closed forms


@pytest.mark.parametrize("features", ["pair", "phase"])
@pytest.mark.parametrize("kernel, sampling", SCHEMES)
def test_unbiased_for_every_width(kernel, sampling, features, record_property):
    gamma, repeats, worst = 0.7, 250, 0.0
    k, k2 = kernel_at(kernel, gamma), kernel_at(kernel, gamma, 2.0)
    for D in (1, 2, 5, 12):
        values = estimates(
            repeats,
            n_components=D,
            kernel=kernel,
            gamma=gamma,
            sampling=sampling,
            features=features,
        )
        # Dependent frequencies have another variance, so theirs is estimated.
        variance = rff_variance(k, k2, D, features)
        if sampling != "iid":
            variance = values.var(ddof=1)
        worst = max(
            worst, abs(values.mean() - k) / (4.5 * np.sqrt(variance / repeats))
        )
        record_property("trials", repeats)
    record_property("value", float(worst))
    assert worst < 1.0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("features, D", [("pair", 6), ("pair", 7), ("phase", 5)])
def test_variance_is_the_closed_form(kernel, features, D):
    gamma, repeats = 0.7, 1500
    k, k2 = kernel_at(kernel, gamma), kernel_at(kernel, gamma, 2.0)
    values = estimates(
        repeats, n_components=D, kernel=kernel, gamma=gamma, features=features
    )
    # The standard error of a sample variance, from the sample's fourth moment.
    squares = (values - k) ** 2
    error = squares.std() / np.sqrt(repeats)
    assert abs(squares.mean() - rff_variance(k, k2, D, features)) < 4.5 * error


def test_variance_and_bias_of_normalised_features():
    # Theory to first order: bias -k (1 - k^4) / (8 D) ... of order 1/D, like its
    # share in the mean square. At D = 100 the next order is within the tolerance.
    gamma, D, repeats = 0.7, 100, 2500
    k = kernel_at("gaussian", gamma)
    values = estimates(
        repeats, n_components=D, gamma=gamma, features="phase", normalize=True
    )
    squares = (values - values.mean()) ** 2
    error = 4.5 * squares.std() / np.sqrt(repeats)
    theory = rff_variance(k, k**4, D, "normalized")
    assert abs(squares.mean() - theory) < error + theory * 4 / D
    plain = rff_variance(k, k**4, D, "phase")
    assert squares.mean() + error < plain


def test_gaussian_variances_factor():
    k = np.linspace(0, 1, 101)
    np.testing.assert_allclose(
        rff_variance(k, k**4, 10, "pair"), (1 - k**2) ** 2 / 10, atol=1e-16
    )
    np.testing.assert_allclose(
        rff_variance(k, k**4, 10, "phase"), (1 - k**2 + k**4 / 2) / 10, atol=1e-16
    )
    np.testing.assert_allclose(
        rff_variance(k, k**4, 10, "normalized"),
        (1 - k**2) ** 2 * (1 + k**2 / 4) / 10,
        atol=1e-16,
    )


@given(
    delta=st.floats(0.01, 20), D=st.integers(1, 1001), kernel=st.sampled_from(KERNELS)
)
@settings(max_examples=80, deadline=None)
def test_which_features_are_better(delta, D, kernel):
    zero, at = np.zeros((1, 1)), np.array([[delta]])
    k, k2 = (kernel_matrix(s * at, zero, kernel=kernel).item() for s in (1, 2))
    pair, phase = (rff_variance(k, k2, D, v) for v in ("pair", "phase"))
    if D == 1:
        assert pair == phase
    elif abs(k2 - 2 * k**2) > 1e-9:
        assert (pair < phase) == (k2 < 2 * k**2)
    if kernel in ("gaussian", "laplacian"):
        assert pair <= phase


def test_phases_win_for_the_cauchy_kernel_far_out():
    edge = np.sqrt(3 + np.sqrt(10))
    for delta, pairs_win in ((edge - 1e-3, True), (edge + 1e-3, False)):
        k, k2 = 1 / (1 + delta**2), 1 / (1 + 4 * delta**2)
        assert (rff_variance(k, k2, 2) < rff_variance(k, k2, 2, "phase")) == pairs_win


def test_variance_keeps_kind_and_dtype(backend):
    k = np.array([0.2, 0.9])
    for dtype in ("float64", "float32"):
        out = rff_variance(backend.asarray(k, dtype), backend.asarray(k**4, dtype), 5)
        assert backend.owns(out, dtype)
        np.testing.assert_allclose(
            backend.numpy(out), rff_variance(k, k**4, 5), rtol=1e-5
        )
    assert isinstance(rff_variance(0.5, 0.0625, 5), float)


# Sampling schemes


def test_orthogonal_blocks():
    d, m = 7, 17
    rff = RandomFourierFeatures(
        2 * m, gamma=0.5, sampling="orthogonal", random_state=0
    ).fit(points(d=d))
    W = rff.frequencies_
    assert W.shape == (m, d)
    for block in (W[:7], W[7:14], W[14:]):
        G = block @ block.T
        np.testing.assert_allclose(G, np.diag(np.diag(G)), atol=1e-13)


@pytest.mark.parametrize("kernel", RADIAL)
def test_orthogonal_lengths_have_the_radial_law(kernel):
    from scipy.stats import ks_2samp

    d, m = 5, 20_000
    rff = RandomFourierFeatures(
        m,
        kernel=kernel,
        gamma=0.5,
        sampling="orthogonal",
        features="phase",
        random_state=0,
    ).fit(points(d=d))
    iid = spectral_sample(kernel, m, d, gamma=0.5, random_state=1)
    lengths = (np.linalg.norm(W, axis=1) for W in (rff.frequencies_, iid))
    assert ks_2samp(*lengths).pvalue > 1e-4
    # One coordinate alone has the right marginal as well: directions are uniform.
    assert ks_2samp(rff.frequencies_[:, 0], iid[:, 0]).pvalue > 1e-4


@pytest.mark.parametrize("sampling", ["orthogonal", "sorf", "qmc"])
def test_dependent_frequencies_beat_independent_ones(sampling):
    # Measured here: 2.1, 2.4 and 2.2 times less error.
    X = points(60, 16)
    K = kernel_matrix(X, gamma=1 / 64)

    def error(sampling):
        return np.mean(
            [
                approximation_error(
                    RandomFourierFeatures(
                        512, gamma=1 / 64, sampling=sampling, random_state=seed
                    ).fit_transform(X),
                    K,
                )
                for seed in range(8)
            ]
        )

    assert error("iid") > 1.5 * error(sampling)


def test_qmc_beats_iid_for_kernels_with_a_mixing_variable():
    X = points(60, 3)
    for kernel in ("matern", "rational_quadratic", "cauchy", "laplacian"):
        K = kernel_matrix(X, kernel=kernel, gamma=0.5)
        error = {
            sampling: np.mean(
                [
                    approximation_error(
                        RandomFourierFeatures(
                            500,
                            kernel=kernel,
                            gamma=0.5,
                            sampling=sampling,
                            random_state=seed,
                        ).fit_transform(X),
                        K,
                    )
                    for seed in range(8)
                ]
            )
            for sampling in ("iid", "qmc")
        }
        assert error["qmc"] < 0.8 * error["iid"], kernel


def sphere(p, t):
    """Sum the series of E cos(sqrt(p) t u), u a coordinate of the unit p-sphere."""
    total, term = 0.0, 1.0
    for i in range(60):
        total += term
        term *= -(t**2) * p / (2 * (i + 1) * (p + 2 * i))
    return total


def test_structured_rows_are_orthogonal_of_length_root_p():
    for d, p in ((1, 1), (2, 2), (8, 8), (64, 64)):
        W = fourier._structured_rows(p, d, np.random.default_rng(0))
        np.testing.assert_allclose(W @ W.T, p * np.eye(p), atol=1e-11)
    # Zero padding is dropping columns: the columns stay orthogonal.
    W = fourier._structured_rows(16, 11, np.random.default_rng(0))
    np.testing.assert_allclose(W.T @ W, 16 * np.eye(11), atol=1e-12)


def test_structured_features_are_biased_by_one_over_p():
    # Lengths are sqrt(p) in place of chi_p, so that on average over directions the
    # estimate is the characteristic function of a sphere and not of a Gaussian.
    t, rng = 2.0, np.random.default_rng(0)
    gauss = np.exp(-(t**2) / 2)
    for p in (16, 64):
        delta = rng.standard_normal((300, p, 40))
        delta *= t / np.linalg.norm(delta, axis=1, keepdims=True)
        means = [np.cos(fourier._structured_rows(p, p, rng) @ d).mean() for d in delta]
        error = np.std(means) / np.sqrt(len(means))
        assert abs(np.mean(means) - sphere(p, t)) < 4.5 * error
        assert np.mean(means) < gauss - 4.5 * error
    # The first order of that bias is -t^4 exp(-t^2 / 2) / (4 p).
    for p in (1000, 2000):
        bias = -(t**4) * gauss / (4 * p)
        assert sphere(p, t) - gauss == pytest.approx(bias, rel=10 / p)


def test_scale_rules():
    X = 3.0 * points(500, 4) + 5.0
    d, V = 4, X.var()
    expected = {
        "gaussian": 1 / (d * V),
        "laplacian": 1 / (d * np.sqrt(V)),
        "cauchy": 1 / np.sqrt(d * V),
        "matern": np.sqrt(2 / (d * V)),
        "rational_quadratic": np.sqrt(2 / (d * V)),
    }
    for kernel, gamma in expected.items():
        rff = RandomFourierFeatures(4, kernel=kernel, random_state=0)
        for data in (X, torch.tensor(X), sp.csr_matrix(X)):
            assert rff.fit(data).gamma_ == pytest.approx(gamma, rel=1e-12)
    peer = RBFSampler(gamma="scale").fit(X)
    assert RandomFourierFeatures().fit(X).gamma_ == pytest.approx(peer._gamma)
    holes = np.where(np.abs(X) > 6, X, 0.0)
    assert RandomFourierFeatures().fit(sp.csr_matrix(holes)).gamma_ == pytest.approx(
        1 / (d * holes.var()), rel=1e-12
    )
    for constant in (0.0, 0.1, 1e6):
        assert RandomFourierFeatures().fit(np.full((9, 3), constant)).gamma_ == 1.0


# The map itself


@pytest.mark.parametrize("features", ["pair", "phase"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_map_equals_its_formula(kernel, features, path, backend):
    X = points(40, 3)
    for D in (1, 2, 8, 9):
        rff = RandomFourierFeatures(
            D, kernel=kernel, gamma=0.5, features=features, random_state=0
        ).fit(X)
        theta, b = X @ rff.frequencies_.T, rff.offset_
        pairs = D // 2 if features == "pair" else 0
        formula = np.sqrt(2 / D) * np.hstack(
            [
                np.cos(theta[:, :pairs]),
                np.sin(theta[:, :pairs]),
                np.cos(theta[:, pairs:] + b),
            ]
        )
        assert formula.shape == (40, D) and len(b) == D - 2 * pairs
        for dtype, eps in (("float64", 2.3e-16), ("float32", 1.2e-7)):
            Z = rff.transform(backend.asarray(X, dtype))
            assert backend.owns(Z, dtype) and Z.shape == (40, D)
            # Float32 input is itself off by eps, which the frequency multiplies.
            angle = np.abs(X) @ np.abs(rff.frequencies_.T)
            tolerance = 8 * eps * (1 + angle.max())
            np.testing.assert_allclose(
                backend.numpy(Z), formula, rtol=0, atol=tolerance
            )


@pytest.mark.parametrize(
    "kernel, options", [("laplacian", {}), ("matern", {"nu": 0.5})]
)
def test_huge_angles_keep_float32_accuracy(kernel, options, path, backend):
    # A float32 angle of 1e5 is off by 1e-2; projected in float64 it is not.
    X = points(200, 3).astype(np.float32)
    rff = RandomFourierFeatures(
        2000, kernel=kernel, gamma=3.0, random_state=0, **options
    ).fit(X)
    assert np.abs(X @ rff.frequencies_.T).max() > 1e4
    Z = backend.numpy(rff.transform(backend.asarray(X, "float32")))
    exact = rff.transform(X.astype(np.float64))
    assert np.abs(Z - exact).max() < 1e-6 * np.sqrt(2 / 2000) * 2


def test_accuracy_of_the_half_angle_form(monkeypatch):
    rng = np.random.default_rng(0)
    # Angles near odd multiples of pi, where the tangent of the half blows up.
    theta = np.concatenate(
        [
            rng.uniform(-50, 50, 100_000),
            np.pi * rng.integers(-9, 9, 1000),
            np.pi * rng.integers(-9, 9, 1000) + 1e-9 * rng.standard_normal(1000),
            [0.0, np.pi, -np.pi, 1e-300],
        ]
    )
    T = (theta / 2)[:, None].copy()
    Z, q = np.empty((len(theta), 2)), np.empty_like(T)
    fourier._half_angle_trig(T, q, Z, 1, 1.0)
    np.testing.assert_allclose(Z[:, 0], np.cos(theta), rtol=0, atol=1e-15)
    np.testing.assert_allclose(Z[:, 1], np.sin(theta), rtol=0, atol=1e-15)


def test_same_frequencies_for_every_kind_and_device(backend):
    X = points(30, 4)
    reference = RandomFourierFeatures(50, random_state=5).fit(X)
    rff = RandomFourierFeatures(50, random_state=5).fit(backend.asarray(X))
    assert rff.gamma_ == pytest.approx(reference.gamma_, rel=1e-14)
    np.testing.assert_allclose(rff.frequencies_, reference.frequencies_, rtol=1e-14)
    np.testing.assert_array_equal(rff.offset_, reference.offset_)
    assert rff.frequencies_.dtype == np.float64


@pytest.mark.parametrize("features", ["pair", "phase"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
def test_gradient_with_respect_to_the_input(features, normalize, kernel, device):
    X = torch.tensor(points(4, 3), device=device, requires_grad=True)
    for D in (5, 6):
        rff = RandomFourierFeatures(
            D,
            kernel=kernel,
            gamma=0.3,
            features=features,
            normalize=normalize,
            random_state=0,
        ).fit(X)
        assert torch.autograd.gradcheck(rff.transform, (X,))
        # The path without a graph gives the same numbers.
        torch.testing.assert_close(
            rff.transform(X), rff.transform(X.detach()), rtol=0, atol=1e-13
        )
    assert torch.autograd.gradcheck(
        rff.transform, (X,), check_forward_ad=True, check_batched_grad=True
    )


@pytest.mark.parametrize("D, features", [(6, "pair"), (7, "pair"), (1, "phase")])
def test_normalised_rows_have_norm_one(D, features, backend):
    X = backend.asarray(points())
    rff = RandomFourierFeatures(
        D, features=features, normalize=True, random_state=0
    ).fit(X)
    norms = np.linalg.norm(backend.numpy(rff.transform(X)), axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-14)
    plain = RandomFourierFeatures(6, random_state=0).fit_transform(points())
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1.0, rtol=1e-14)


@given(
    n=st.integers(1, 70),
    d=st.integers(1, 9),
    D=st.integers(1, 40),
    tile=st.integers(1, 300),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_rows_do_not_depend_on_their_company(n, d, D, tile, data):
    kernel = data.draw(st.sampled_from(KERNELS))
    features = data.draw(st.sampled_from(["pair", "phase"]))
    X = points(n, d)
    rff = RandomFourierFeatures(
        D, kernel=kernel, features=features, gamma=0.5, random_state=0
    ).fit(X)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fourier, "TILE", tile)
        Z = rff.transform(X)
    i = data.draw(st.integers(0, n - 1))
    scale = 1 + (np.abs(X) @ np.abs(rff.frequencies_.T)).max()
    np.testing.assert_allclose(
        Z[i : i + 1], rff.transform(X[i : i + 1]), rtol=0, atol=1e-14 * scale
    )


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
@pytest.mark.parametrize("features", ["pair", "phase"])
def test_sparse_input(kernel, features, path):
    X = np.where(np.abs(points(60, 9)) > 0.8, points(60, 9), 0.0)
    for dtype in (np.float64, np.float32):
        A = sp.csr_matrix(X.astype(dtype))
        rff = RandomFourierFeatures(
            21, kernel=kernel, gamma=0.2, features=features, random_state=0
        ).fit(A)
        Z = rff.transform(A)
        assert isinstance(Z, np.ndarray) and Z.dtype == dtype
        np.testing.assert_allclose(Z, rff.transform(X.astype(dtype)), atol=2e-6)


@pytest.mark.parametrize("D", [100, 101])
def test_equals_rbf_sampler_given_its_frequencies(D):
    X = points()
    peer = RBFSampler(gamma=0.4, n_components=D, random_state=0).fit(X)
    rff = RandomFourierFeatures(D, gamma=0.4, features="phase").fit(X)
    rff.frequencies_, rff.offset_ = peer.random_weights_.T, peer.random_offset_
    np.testing.assert_allclose(rff.transform(X), peer.transform(X), atol=1e-14)


def test_replaced_frequencies_are_used_everywhere(backend):
    X = backend.asarray(points())
    rff = RandomFourierFeatures(10, gamma=0.4, random_state=0).fit(X)
    before = backend.numpy(rff.transform(X)).copy()
    with pytest.raises(ValueError, match="read-only"):
        rff.frequencies_ *= 2
    rff.frequencies_ = np.zeros_like(rff.frequencies_)
    after = backend.numpy(rff.transform(X))
    np.testing.assert_allclose(after[:, :5], np.sqrt(0.2))
    assert np.abs(after - before).max() > 0.1


# Contracts


def test_random_state_and_refits():
    X = points()
    rff = RandomFourierFeatures(9, random_state=0)
    first = rff.fit_transform(X)
    np.testing.assert_array_equal(first, rff.fit_transform(X))
    rng = np.random.default_rng(0)
    moving = RandomFourierFeatures(9, random_state=rng)
    assert np.abs(moving.fit_transform(X) - moving.fit_transform(X)).max() > 0.01
    unseeded = RandomFourierFeatures(9)
    assert np.abs(unseeded.fit_transform(X) - unseeded.fit_transform(X)).max() > 0.01


@pytest.mark.parametrize("sampling", ["iid", "orthogonal", "sorf", "qmc"])
def test_global_random_state_is_left_alone(sampling):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_before = torch.get_rng_state()
    RandomFourierFeatures(9, sampling=sampling).fit(points())
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())


def test_clone_pickle_and_names(backend):
    X = backend.asarray(points())
    rff = RandomFourierFeatures(5, kernel="matern", nu=2.5, random_state=0)
    assert clone(rff).get_params() == rff.get_params()
    Z = backend.numpy(rff.fit_transform(X))
    copy = pickle.loads(pickle.dumps(rff))
    np.testing.assert_array_equal(backend.numpy(copy.transform(X)), Z)
    names = rff.get_feature_names_out()
    assert list(names) == [f"randomfourierfeatures{i}" for i in range(5)]
    assert rff.set_output(transform="default") is rff


def test_pipeline_and_grid_search():
    X = points(120, 2)
    y = np.sin(2 * X[:, 0]) + X[:, 1] ** 2
    model = make_pipeline(RandomFourierFeatures(200, random_state=0), Ridge(1e-3))
    search = GridSearchCV(
        model,
        {
            "randomfourierfeatures__gamma": [1e-3, 0.3, 1e3],
            "randomfourierfeatures__features": ["pair", "phase"],
        },
        cv=3,
    ).fit(X, y)
    assert search.best_params_["randomfourierfeatures__gamma"] == 0.3
    assert search.best_score_ > 0.9


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"n_components": 0}, ValueError, "n_components.*>= 1.*0"),
        ({"n_components": 2.0}, TypeError, "n_components.*2.0"),
        ({"n_components": True}, TypeError, "n_components.*True"),
        ({"gamma": 0.0}, ValueError, "gamma.*> 0.*0.0"),
        ({"gamma": -1}, ValueError, "gamma.*-1"),
        ({"gamma": "auto"}, ValueError, "gamma.*'scale'.*'auto'"),
        ({"gamma": None}, TypeError, "gamma.*None"),
        ({"kernel": "poly"}, ValueError, "kernel.*gaussian.*'poly'"),
        ({"kernel": "matern", "nu": 0}, ValueError, "nu.*0"),
        ({"kernel": "rational_quadratic", "alpha": np.nan}, ValueError, "alpha.*nan"),
        ({"sampling": "halton"}, ValueError, "sampling.*'halton'"),
        ({"features": "sine"}, ValueError, "features.*'sine'"),
        ({"normalize": 1}, TypeError, "normalize.*1"),
        ({"random_state": "a"}, TypeError, "random_state.*'a'"),
        (
            {"kernel": "laplacian", "sampling": "orthogonal"},
            ValueError,
            "orthogonal.*radial.*'laplacian'",
        ),
        ({"kernel": "cauchy", "sampling": "sorf"}, ValueError, "sorf.*'cauchy'"),
    ],
)
def test_bad_parameters_are_refused_by_name(options, error, words):
    with pytest.raises(error, match=words):
        RandomFourierFeatures(**options).fit(points())


def test_bad_data_are_refused(backend):
    rff = RandomFourierFeatures(4, random_state=0)
    with pytest.raises(NotFittedError):
        rff.transform(backend.asarray(points()))
    rff.fit(backend.asarray(points()))
    with pytest.raises(ValueError, match="X has 2 features.*expecting 3"):
        rff.transform(backend.asarray(points(d=2)))
    for value in (np.nan, np.inf):
        X = points()
        X[2, 1] = value
        for call in (rff.fit, rff.transform):
            with pytest.raises(ValueError, match="X.*(NaN|infinity)"):
                call(backend.asarray(X))
    with pytest.raises(ValueError, match="1D|2-D"):
        rff.fit(backend.asarray(points()[0]))
    with pytest.raises(ValueError, match="row|sample"):
        rff.fit(backend.asarray(np.empty((0, 3))))
    whole = backend.asarray(np.arange(6).reshape(2, 3), "int64")
    assert backend.owns(rff.transform(whole), "float64")


def test_qmc_names_its_largest_dimension():
    X = np.zeros((2, 21202))
    with pytest.raises(ValueError, match="qmc.*21201.*21202"):
        RandomFourierFeatures(4, sampling="qmc").fit(X)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((0.5, 0.1, 0), ValueError, "D.*0"),
        ((0.5, 0.1, 2.0), TypeError, "D.*2.0"),
        ((0.5, 0.1, 2, "both"), ValueError, "variant.*'both'"),
        ((1.5, 0.1, 2), ValueError, "k must lie.*1.5"),
        ((0.5, -3, 2), ValueError, "k2 must lie.*-3"),
        ((0.99, 0.0, 2), ValueError, "k2 must be at least.*0.99"),
        ((np.nan, 0.0, 2), ValueError, "k.*NaN"),
    ],
)
def test_variance_refuses_bad_input_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        rff_variance(*arguments)


def test_importing_the_wing_does_not_import_torch():
    code = "import lib.features, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
