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
}


def exemptions(estimator):
    return EXEMPTIONS.get(type(estimator).__name__, {})


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=exemptions)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_exemptions_belong_to_an_estimator_of_the_battery():
    assert set(EXEMPTIONS) <= {type(estimator).__name__ for estimator in ESTIMATORS}
