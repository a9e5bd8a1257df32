"""One battery for every estimator: scikit-learn's own checks.

A new estimator enters by one line in ``ESTIMATORS``. Where scikit-learn's contract
cannot hold, the exemption is named in ``EXEMPTIONS`` with its reason.
"""

from sklearn.utils.estimator_checks import parametrize_with_checks

from lib.acceleration import DeepLinear, WideReLU
from lib.convexnn import (
    ConvexNNRegressor,
    ConvexReLUClassifier,
    ConvexReLURegressor,
    FrankWolfeNN,
    GatedReLUClassifier,
    GatedReLURegressor,
)
from lib.features import (
    Fastfood,
    LeverageScoreFeatures,
    RandomFeatureRidge,
    RandomFourierFeatures,
    RandomKitchenSinksClassifier,
    RandomKitchenSinksRegressor,
)
from lib.graphs import (
    GraphicalLasso,
    JointSpectralGraphicalLasso,
    LaplacianGraphicalLasso,
    SpectralGraphicalLasso,
    SpectralTemplates,
)

ESTIMATORS = [
    RandomFourierFeatures(random_state=0),
    RandomFourierFeatures(7, features="phase", normalize=True, random_state=0),
    RandomFourierFeatures(6, kernel="laplacian", sampling="qmc", random_state=0),
    RandomFourierFeatures(9, kernel="matern", sampling="orthogonal", random_state=0),
    RandomFourierFeatures(8, sampling="sorf", random_state=0),
    Fastfood(random_state=0),
    RandomFeatureRidge(RandomFourierFeatures(random_state=0)),
    LeverageScoreFeatures(random_state=0),
    LeverageScoreFeatures(7, features="phase", kernel="matern", random_state=0),
    RandomKitchenSinksRegressor(random_state=0),
    RandomKitchenSinksRegressor(feature="stump", bound=50.0, random_state=0),
    RandomKitchenSinksClassifier(random_state=0),
    RandomKitchenSinksClassifier(feature="stump", bound=5.0, random_state=0),
    WideReLU(100, random_state=0),
    DeepLinear(3, 20, random_state=0),
    GatedReLURegressor(gates=16, random_state=0),
    GatedReLUClassifier(gates=16, random_state=0),
    ConvexReLURegressor(gates=8, random_state=0),
    ConvexReLUClassifier(gates=8, random_state=0),
    ConvexNNRegressor(random_state=0),
    ConvexNNRegressor(activation="tanh", tune=True, max_units=5, random_state=0),
    FrankWolfeNN(oracle="local", max_iter=50, random_state=0),
    GraphicalLasso(),
    LaplacianGraphicalLasso(),
    LaplacianGraphicalLasso(0.1, "mcp"),
    SpectralGraphicalLasso(),
    SpectralGraphicalLasso(gamma=0.1, beta=float("inf"), solver="fista"),
    SpectralTemplates(),
    JointSpectralGraphicalLasso(random_state=0),
]

#: Estimator name to {check name: reason}.
EXEMPTIONS = {
    "WideReLU": dict.fromkeys(
        (
            "check_positive_only_tag_during_fit",
            "check_estimators_dtypes",
            "check_fit2d_1feature",
        ),
        "the data have repeated or parallel rows, for which theory has no step size",
    ),
    "JointSpectralGraphicalLasso": dict.fromkeys(
        (
            "check_complex_data",
            "check_dict_unchanged",
            "check_dont_overwrite_parameters",
            "check_dtype_object",
            "check_estimator_sparse_array",
            "check_estimator_sparse_matrix",
            "check_estimator_sparse_tag",
            "check_estimators_dtypes",
            "check_estimators_empty_data_messages",
            "check_estimators_fit_returns_self",
            "check_estimators_nan_inf",
            "check_estimators_overwrite_params",
            "check_estimators_pickle",
            "check_f_contiguous_array_estimator",
            "check_fit2d_1feature",
            "check_fit2d_1sample",
            "check_fit2d_predict1d",
            "check_fit_check_is_fitted",
            "check_fit_idempotent",
            "check_fit_score_takes_y",
            "check_methods_sample_order_invariance",
            "check_methods_subset_invariance",
            "check_n_features_in",
            "check_n_features_in_after_fitting",
            "check_pipeline_consistency",
            "check_positive_only_tag_during_fit",
            "check_readonly_memmap_input",
        ),
        "it takes a list of data sets, one for each graph, where the check has one",
    ),
}


def exemptions(estimator):
    return EXEMPTIONS.get(type(estimator).__name__, {})


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=exemptions)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_exemptions_belong_to_an_estimator_of_the_battery():
    assert set(EXEMPTIONS) <= {type(estimator).__name__ for estimator in ESTIMATORS}
