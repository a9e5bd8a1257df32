"""Experiments on spectra and on Figure 2 at a tiny scale, and the signs of metrics."""

import numpy as np
import pytest

from lib.replication import Cell, Results
from lib.replication.experiments import graphs as lab

FIGURE2 = [
    {"graphon": "quadratic", "p": 6, "n": 12},
    {"graphon": "quadratic", "p": 6, "n": 40},
    {"graphon": "core", "p": 6, "n": 12},
]


def results(run, configs, seeds=1):
    cells = [Cell(*cell) for cell in run(configs, range(seeds), "cpu")]
    return Results(cells, "tiny", "quick")


@pytest.fixture(scope="module")
def figure2():
    return results(lab.run_figure2, FIGURE2)


def test_a_cell_does_not_depend_on_what_it_was_batched_with(figure2):
    (alone,) = results(lab.run_figure2, FIGURE2[1:2])
    together = figure2.where(**FIGURE2[1])[0]
    for key, value in alone.data.items():
        assert np.array_equal(value, together.data[key]), key


def test_every_fit_has_its_column(figure2):
    for cell in figure2:
        assert cell.data["error"].shape == (len(lab.FIGURE2_COLUMNS),)
        assert np.all(np.isfinite(cell.data["error"]))
        assert np.all((cell.data["ap"] >= 0) & (cell.data["ap"] <= 1))
        assert cell.data["converged"].all()


def synthetic(seeds=6):
    """Errors that are a method's place in the list plus a hump over its grid."""
    rng = np.random.default_rng(0)
    cells = []
    for seed in range(seeds):
        error = []
        for place, grid in enumerate(lab.FIGURE2_TUNING.values()):
            for k, _ in enumerate(grid):
                error.append(place + abs(k - len(grid) // 2) + 0.01 * rng.random())
        data = {"error": np.array(error), "ap": 100.0 - np.array(error)}
        cells.append(Cell({"n": 60}, seed, data))
    return Results(cells)


def test_tuned_curves_take_the_value_that_is_best_on_average():
    data = synthetic()
    for place, (method, grid) in enumerate(lab.FIGURE2_TUNING.items()):
        assert np.allclose(lab.figure2_curve(data, method), place, atol=0.02)
        assert lab.figure2_tuning(data, method) == grid[len(grid) // 2]


@pytest.mark.parametrize(
    ("metric", "method", "over"),
    [
        (lab.figure2_true_over_mle, "prior-true", "laplacian-mle"),
        (lab.figure2_true_over_constant, "prior-true", "prior-constant"),
        (lab.figure2_other_over_l1, "prior-other", "laplacian-l1"),
        (lab.figure2_oracle_over_constant, "prior-oracle", "prior-constant"),
    ],
)
def test_gains_are_positive_where_the_error_is_lower(metric, method, over):
    places = list(lab.FIGURE2_TUNING)
    expected = places.index(over) - places.index(method)
    assert np.allclose(metric(synthetic()), expected, atol=0.03)


def test_losses_and_rankings_have_their_signs():
    data, places = synthetic(), list(lab.FIGURE2_TUNING)
    lost = places.index("map-true") - places.index("prior-true")
    assert np.allclose(lab.figure2_map_loss(data), lost, atol=0.03)
    gained = places.index("laplacian-mle") - places.index("prior-true")
    assert np.allclose(lab.figure2_ranking_gain(data), gained, atol=0.03)


def test_spectra_of_a_constant_graphon_follow_the_exact_law():
    configs = [{"graphon": "constant", "p": p} for p in (50, 200)]
    data = results(lab.run_graphon_spectra, configs, seeds=6)
    assert abs(lab.spectra_scaled_error(data).mean() - np.sqrt(0.75)) < 0.05
    assert abs(lab.spectra_exponent(data).mean() + 0.5) < 0.05
    assert np.all(lab.spectra_fall(data) > 0)
    assert np.all(lab.spectra_printed_margin(data) > 0)
    assert abs(lab.spectra_resistance_ratio(data).mean() - 1) < 0.05


def test_sweeps_fall_with_a_sorted_prior_and_rise_with_a_drawn_one():
    base = {"p": 10, "n": 20, "beta": 10.0, "gamma": 0.3, "sweeps": 60}
    configs = [base | {"order": order} for order in ("sorted", "drawn")]
    data = results(lab.run_sweeps, configs, seeds=3)
    rises = lab.sweeps_largest_rise(data.where(order="sorted"))
    assert np.all(rises < 1e-9)
    assert np.all(lab.sweeps_largest_rise(data.where(order="drawn")) > 1e-6)


def test_starts_of_a_convex_problem_agree():
    config = {"p": 6, "gamma": 0.0, "beta": 10.0, "starts": 3}
    data = results(lab.run_starts, [config], seeds=2)
    assert np.all(lab.starts_spread(data) < 1e-3)
