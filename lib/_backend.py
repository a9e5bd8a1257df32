"""Array kinds, devices, random generators and input checks shared by the wings.

Every public function of ``lib`` takes numpy arrays or torch tensors and gives back
the same kind, dtype and device. Nothing here imports torch: a tensor can only
arrive once its caller has imported it.
"""

import numbers
import sys

import numpy as np

__all__ = [
    "as_float_array",
    "as_kind",
    "check_choice",
    "check_integer",
    "check_real",
    "check_same_kind",
    "check_samples",
    "is_torch",
    "make_rng",
    "row_blocks",
    "to_numpy",
]


def is_torch(x):
    # A tensor exists only where torch is imported already.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def to_numpy(x):
    return x.detach().cpu().numpy() if is_torch(x) else np.asarray(x)


def as_kind(x, like):
    # x in the kind, device and floating dtype of `like`; booleans stay booleans.
    if is_torch(like):
        torch = sys.modules["torch"]
        dtype = like.dtype if like.is_floating_point() else torch.float64
        boolean = x.dtype in (bool, torch.bool)
        return torch.as_tensor(x, dtype=None if boolean else dtype, device=like.device)
    single = getattr(like, "dtype", None) == np.float32 and x.dtype != bool
    return x.astype(np.float32) if single else x


def make_rng(random_state):
    """
    Turn a ``random_state`` into a numpy Generator that nobody else draws from.

    Parameters
    ----------
    random_state : int, SeedSequence, Generator, RandomState or None
        ``None`` means fresh entropy, not numpy's global state. A Generator is used
        as it is, so repeated calls go on with its stream.

    Returns
    -------
    numpy.random.Generator
        The generator.

    Raises
    ------
    TypeError
        If ``random_state`` is none of the above.
    ValueError
        If it is a negative integer.
    """
    if isinstance(random_state, np.random.RandomState):
        # Seeded by draws: its bit generator may serve someone else too.
        return np.random.default_rng(random_state.randint(0, 2**31 - 1, size=4))
    if random_state is None or isinstance(
        random_state, (np.random.Generator, np.random.SeedSequence)
    ):
        return np.random.default_rng(random_state)
    if isinstance(random_state, bool) or not isinstance(random_state, numbers.Integral):
        raise TypeError(
            "random_state must be an integer, a numpy Generator, SeedSequence or "
            f"RandomState, or None, got {random_state!r}"
        )
    check_integer("random_state", random_state, minimum=0)
    return np.random.default_rng(int(random_state))


def check_choice(name, value, allowed):
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}")


def check_integer(name, value, *, minimum=1):
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer >= {minimum}, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}, got {value!r}")


def check_real(name, value, *, allow_zero=False):
    wanted = "finite real number " + (">= 0" if allow_zero else "> 0")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a {wanted}, got {value!r}")
    if not np.isfinite(value) or value < 0 or (value == 0 and not allow_zero):
        raise ValueError(f"{name} must be a {wanted}, got {value!r}")


def as_float_array(X, name="X", *, ndim=2):
    """
    Return ``X`` as a finite floating-point array of the kind that came in.

    Parameters
    ----------
    X : array-like or Tensor
        The array; float32 and float64 are kept, integers and booleans become
        float64, lists become numpy arrays.
    name : str, default="X"
        The argument's name, for the error messages.
    ndim : int or tuple of int, default=2
        Allowed numbers of dimensions.

    Returns
    -------
    ndarray or Tensor
        ``X`` itself where nothing had to change.

    Raises
    ------
    TypeError
        If the dtype is neither float32, float64, integer nor boolean.
    ValueError
        If the number of dimensions is another one, or an entry is NaN or infinite.
    """
    if is_torch(X):
        torch = sys.modules["torch"]
        if X.dtype not in (torch.float32, torch.float64):
            if X.is_floating_point() or X.is_complex():
                raise TypeError(
                    f"{name} must be float32, float64 or integer, got {X.dtype}"
                )
            X = X.to(torch.float64)
        # A sum is finite only if its terms are: one pass, no mask in memory. It may
        # overflow on finite entries, and only then they are looked at one by one.
        finite = bool(torch.isfinite(X.detach().sum())) or bool(
            torch.isfinite(X.detach()).all()
        )
    else:
        X = np.asarray(X)
        if X.dtype not in (np.float32, np.float64):
            if X.dtype.kind not in "biu":
                raise TypeError(
                    f"{name} must be float32, float64 or integer, got {X.dtype}"
                )
            X = X.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            finite = bool(np.isfinite(X.sum())) or bool(np.isfinite(X).all())
    allowed = (ndim,) if isinstance(ndim, int) else tuple(ndim)
    if X.ndim not in allowed:
        wanted = " or ".join(f"{k}-D" for k in allowed)
        raise ValueError(f"{name} must be {wanted}, got shape {tuple(X.shape)}")
    if not finite:
        raise ValueError(f"{name} must hold finite numbers, got NaN or infinity")
    return X


def check_same_kind(X, Y, names=("X", "Y")):
    if is_torch(X) != is_torch(Y):
        raise TypeError(
            f"{names[0]} and {names[1]} must both be numpy arrays or both be torch "
            f"tensors, got {type(X).__name__} and {type(Y).__name__}"
        )
    if is_torch(X) and X.device != Y.device:
        raise ValueError(
            f"{names[0]} and {names[1]} must be on one device, got {X.device} and "
            f"{Y.device}"
        )


def check_samples(estimator, X, y=None, *, reset, sparse=False):
    """
    Check what an estimator gets, as scikit-learn does, for tensors as well.

    Parameters
    ----------
    estimator : object
        The estimator; ``n_features_in_`` is set on it, or compared with.
    X : array-like, sparse matrix or Tensor of shape (n, d)
        Points. float32 and float64 are kept, other numbers become float64.
    y : array-like or Tensor of shape (n,) or (n, k), optional
        Targets.
    reset : bool
        Whether this is a first fit.
    sparse : bool, default=False
        Whether sparse matrices are allowed.

    Returns
    -------
    X : ndarray, sparse matrix or Tensor
        The points.
    y : ndarray or Tensor
        The targets, where they were given.

    Raises
    ------
    TypeError
        If ``X`` and ``y`` differ in kind, or a dtype is not allowed.
    ValueError
        If shapes or devices disagree, or an entry is not finite.
    """
    if not is_torch(X):
        from sklearn.utils.validation import validate_data

        if is_torch(y):
            check_same_kind(np.empty(0), y, ("X", "y"))
        options = {
            "accept_sparse": "csr" if sparse else False,
            "dtype": (np.float64, np.float32),
            "reset": reset,
        }
        if y is None:
            return validate_data(estimator, X, **options)
        options |= {"multi_output": True, "y_numeric": True}
        return validate_data(estimator, X, y, **options)
    X = as_float_array(X, "X")
    n, d = X.shape
    if n == 0 or d == 0:
        raise ValueError(
            f"X must have at least one row and one column, got shape {(n, d)}"
        )
    if reset:
        estimator.n_features_in_ = d
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif d != estimator.n_features_in_:
        raise ValueError(
            f"X has {d} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    if y is None:
        return X
    if not is_torch(y):
        check_same_kind(X, np.empty(0), ("X", "y"))
    y = as_float_array(y, "y", ndim=(1, 2))
    check_same_kind(X, y, ("X", "y"))
    if y.shape[0] != n:
        raise ValueError(f"y must have the {n} rows of X, got {y.shape[0]}")
    return X, y


def row_blocks(n, rows):
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))
