r"""
Gradients of the samples' losses, kept as factors.

The gradient of a linear layer with weights and bias is the outer product of two short
vectors, :math:`g_i = \mathrm{vec}(p_i \tilde h_i^\top)` with :math:`\tilde h = (h, 1)`.
All that a selection needs follows from the factors:

.. math:: \langle g_i, g_j \rangle = (p_i^\top p_j)(\tilde h_i^\top \tilde h_j), \qquad
    \sum_i w_i g_i = \mathrm{vec}\bigl((w P)^\top \tilde H\bigr), \qquad
    \langle g_i, V \rangle = p_i^\top V \tilde h_i.
"""

import math
import sys

import numpy as np

from lib._backend import (
    as_float_array,
    as_kind,
    check_integer,
    check_same_kind,
    is_torch,
    row_blocks,
    to_numpy,
)

__all__ = ["Gradients", "all_layer_gradients", "last_layer_gradients"]

# Numbers in a temporary of one block of rows.
_BLOCK = 2**20


class Gradients:
    r"""
    Gradients of n samples over one or several layers, not materialised.

    Made by `last_layer_gradients` and `all_layer_gradients`. Indexing with integers, a
    slice or a mask gives the gradients of some of the samples.

    Parameters
    ----------
    layers : sequence of pairs of ndarray or Tensor
        One pair (P, H) of shapes (n, o) and (n, a) a layer, which stands for the
        rows :math:`\mathrm{vec}(p_i h_i^\top)`; or (B, None) for the rows of B.
    logits : ndarray or Tensor of shape (n, C), optional
        Logits that the gradients were computed at.
    y : ndarray or Tensor of shape (n,), optional
        Labels.

    Attributes
    ----------
    layers : tuple of pairs
        The factors.
    logits : ndarray, Tensor or None
        The logits.
    y : ndarray, Tensor or None
        The labels.
    dim : int
        Entries of one gradient.

    Raises
    ------
    TypeError
        If the factors are not all numpy arrays, or all tensors, of floats.
    ValueError
        If shapes or devices disagree, there is no row, or an entry is not finite.

    Notes
    -----
    n (o + a) numbers are stored for a layer with o a weights.

    References
    ----------
    .. [1] A. Katharopoulos and F. Fleuret, "Not all samples are created equal: deep
       learning with importance sampling", ICML 2018, Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import Gradients
    >>> G = Gradients([(np.array([[1.0, 3.0], [0.0, 2.0]]), np.eye(2))])
    >>> G.dense()
    array([[1., 0., 3., 0.],
           [0., 0., 0., 2.]])
    >>> G.gram(), len(G[:1]), G.dim
    (array([[10.,  0.],
           [ 0.,  4.]]), 1, 4)
    """

    def __init__(self, layers, logits=None, y=None):
        checked = []
        for left, right in layers:
            left = as_float_array(left, "every factor")
            if right is not None:
                right = as_float_array(right, "every factor")
                check_same_kind(left, right, ("both factors", "of a layer"))
            checked.append((left, right))
        if not checked:
            raise ValueError("layers must hold at least one layer, got none")
        first = checked[0][0]
        for part in [part for pair in checked for part in pair if part is not None]:
            check_same_kind(first, part, ("all factors", "of all layers"))
            if part.shape[0] != first.shape[0] or part.dtype != first.dtype:
                raise ValueError(
                    f"layers must have {first.shape[0]} rows of {first.dtype} each, "
                    f"got {part.shape[0]} of {part.dtype}"
                )
        if first.shape[0] == 0:
            raise ValueError("layers must have at least one row, got none")
        self._set(checked, logits, y)

    def _set(self, layers, logits, y):
        self.layers, self.logits, self.y = tuple(layers), logits, y
        self.dim = sum(math.prod(shape) for shape in self._shapes())
        return self

    def _shapes(self):
        return [
            (left.shape[1],) if right is None else (left.shape[1], right.shape[1])
            for left, right in self.layers
        ]

    # The same object with every array passed through a function.
    def _map(self, function):
        layers = [
            (function(left), None if right is None else function(right))
            for left, right in self.layers
        ]
        rest = (None if x is None else function(x) for x in (self.logits, self.y))
        return Gradients.__new__(Gradients)._set(layers, *rest)

    # In numpy where that costs nothing: tensors of the CPU share their memory.
    def _host(self):
        x = self.layers[0][0]
        return self._map(to_numpy) if is_torch(x) and x.device.type == "cpu" else self

    def __len__(self):
        return self.layers[0][0].shape[0]

    def __getitem__(self, index):
        if not isinstance(index, slice):
            x = self.layers[0][0]
            index = to_numpy(index)
            if index.ndim > 1 or index.dtype.kind not in "iub":
                raise TypeError(
                    "index must be integers, a slice or a mask of one dimension, got "
                    f"{index.ndim} dimensions of {index.dtype}"
                )
            index = np.atleast_1d(index)
            if is_torch(x):
                torch = sys.modules["torch"]
                index = torch.as_tensor(np.ascontiguousarray(index), device=x.device)
        part = self._map(lambda x: x[index])
        if len(part) == 0:
            raise ValueError("index must select at least one sample, got none")
        return part

    def gram(self, other=None):
        """
        Compute inner products of all pairs.

        Parameters
        ----------
        other : Gradients, optional
            Gradients of m samples over the same layers; by default the same ones.

        Returns
        -------
        ndarray or Tensor of shape (n, m)
            The inner products.

        Raises
        ------
        TypeError
            If ``other`` is no `Gradients`, or of another kind.
        ValueError
            If its layers have other shapes, or it is on another device.

        Notes
        -----
        Takes n m numbers, and temporaries of a block of rows.
        """
        other = self._check_other(other)
        n, m = len(self), len(other)
        out = self._empty((n, m))
        for rows in row_blocks(n, max(1, _BLOCK // m)):
            for i, (mine, theirs) in enumerate(
                zip(self.layers, other.layers, strict=True)
            ):
                product = mine[0][rows] @ theirs[0].T
                if mine[1] is not None:
                    product *= mine[1][rows] @ theirs[1].T
                if i == 0:
                    out[rows] = product
                else:
                    out[rows] += product
        return out

    def _check_other(self, other):
        if other is None:
            return self
        if not isinstance(other, Gradients):
            raise TypeError(f"other must be Gradients, got {type(other).__name__}")
        check_same_kind(self.layers[0][0], other.layers[0][0], ("self", "other"))
        if self._shapes() != other._shapes():
            raise ValueError(
                f"other must have layers of shapes {self._shapes()}, got "
                f"{other._shapes()}"
            )
        return other

    def _empty(self, shape, double=False):
        x = self.layers[0][0]
        if is_torch(x):
            torch = sys.modules["torch"]
            dtype = torch.float64 if double else x.dtype
            return torch.empty(shape, dtype=dtype, device=x.device)
        return np.empty(shape, dtype=np.float64 if double else x.dtype)

    def dot(self, V):
        r"""
        Compute inner products with one vector.

        Parameters
        ----------
        V : array-like or Tensor of ``dim`` entries
            The vector in the order of `dense`; for one layer also a matrix (o, a).

        Returns
        -------
        ndarray or Tensor of shape (n,)
            The numbers :math:`\langle g_i, V \rangle`.

        Raises
        ------
        TypeError
            If ``V`` is of another kind.
        ValueError
            If it has another number of entries.

        Notes
        -----
        O(n dim) operations.
        """
        V = V if is_torch(V) else np.asarray(V)
        check_same_kind(self.layers[0][0], V, ("self", "V"))
        if math.prod(V.shape) != self.dim:
            raise ValueError(
                f"V must have {self.dim} entries, got shape {tuple(V.shape)}"
            )
        x = self.layers[0][0]
        V = V.reshape(-1)
        V = V.to(x.dtype) if is_torch(x) else V.astype(x.dtype, copy=False)
        total, start = 0.0, 0
        for (left, right), shape in zip(self.layers, self._shapes(), strict=True):
            part = V[start : start + math.prod(shape)]
            start += math.prod(shape)
            if right is None:
                total = total + left @ part
            else:
                total = total + ((right @ part.reshape(shape).T) * left).sum(1)
        return total

    def sum(self, w=None):
        r"""
        Add the gradients up.

        Parameters
        ----------
        w : array-like or Tensor of shape (n,), optional
            Weights; all one by default.

        Returns
        -------
        ndarray or Tensor of shape (dim,)
            The sum :math:`\sum_i w_i g_i`, in the order of `dense`.

        Raises
        ------
        TypeError
            If ``w`` is of another kind.
        ValueError
            If ``w`` has another length or an entry that is not finite.

        Notes
        -----
        O(n dim) operations in float64, by blocks of rows.
        """
        x = self.layers[0][0]
        if w is not None:
            w = as_float_array(w, "w", ndim=1)
            check_same_kind(x, w, ("self", "w"))
            if w.shape[0] != len(self):
                raise ValueError(f"w must have {len(self)} entries, got {w.shape[0]}")
        return as_kind(self._sum(w), x)

    def _sum(self, w=None):
        # In float64 whatever the dtype: the error of a match is a small difference.
        out, start = self._empty((self.dim,), double=True), 0
        for (left, right), shape in zip(self.layers, self._shapes(), strict=True):
            width = left.shape[1] + (0 if right is None else right.shape[1])
            total = 0.0
            for rows in row_blocks(len(self), max(1, _BLOCK // width)):
                weighted = _double(left[rows])
                if w is not None:
                    weighted = weighted * _double(w[rows])[:, None]
                if right is None:
                    total = total + weighted.sum(0)
                else:
                    total = total + weighted.T @ _double(right[rows])
            out[start : start + math.prod(shape)] = total.reshape(-1)
            start += math.prod(shape)
        return out

    def sqnorm(self):
        r"""
        Compute the squared norms.

        Returns
        -------
        ndarray or Tensor of shape (n,)
            The numbers :math:`\lVert g_i \rVert^2`.
        """
        total = 0.0
        for left, right in self.layers:
            part = (left * left).sum(1)
            total = total + (part if right is None else part * (right * right).sum(1))
        return total

    def dense(self):
        """
        Materialise the gradients.

        Returns
        -------
        ndarray or Tensor of shape (n, dim)
            One gradient a row, layer after layer, weights of one output together.
        """
        out, start = self._empty((len(self), self.dim)), 0
        for left, right in self.layers:
            if right is not None:
                left = (left[:, :, None] * right[:, None, :]).reshape(len(self), -1)
            out[:, start : start + left.shape[1]] = left
            start += left.shape[1]
        return out


def _double(x):
    return x.double() if is_torch(x) else x.astype(np.float64, copy=False)


# Plain vectors are gradients too: of the points themselves.
def as_gradients(G, name="G"):
    if isinstance(G, Gradients):
        return G
    X = as_float_array(G, name)
    if X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(
            f"{name} must have at least one row and one column, got shape "
            f"{tuple(X.shape)}"
        )
    return Gradients.__new__(Gradients)._set([(X, None)], None, None)


# Labels as int64 of numpy, whatever they came as.
def check_labels(y, n, n_classes=None):
    y = to_numpy(y)
    if y.dtype.kind not in "iub":
        raise TypeError(f"y must be integers, got {y.dtype}")
    if y.shape != (n,):
        raise ValueError(f"y must be of shape ({n},), got {y.shape}")
    if n_classes is not None and n and not 0 <= y.min() <= y.max() < n_classes:
        raise ValueError(
            f"y must be labels from 0 to {n_classes - 1}, got {y.min()} to {y.max()}"
        )
    return y.astype(np.int64)


def last_layer_gradients(logits, y, features=None):
    r"""
    Factor the gradients of the cross entropy in the last layer.

    .. math:: g_i = \mathrm{vec}\bigl((\mathrm{softmax}(z_i) - e_{y_i})\,
        (h_i, 1)^\top\bigr)

    Parameters
    ----------
    logits : array-like or Tensor of shape (n, C)
        Logits z.
    y : array-like or Tensor of shape (n,)
        Labels 0, ..., C - 1.
    features : array-like or Tensor of shape (n, D), optional
        Inputs h of the last layer. Without them the gradients are those of the bias.

    Returns
    -------
    Gradients
        Gradients of C (D + 1) or C entries, with logits and labels.

    Raises
    ------
    TypeError
        If kinds differ or a dtype is wrong.
    ValueError
        If shapes or devices disagree, a label is out of range or an entry is not
        finite.

    Notes
    -----
    O(n C) operations; n (C + D + 1) numbers are stored. The entry of the sample's own
    class is computed as minus the sum of the others, so that it keeps its digits when
    the network is sure.

    References
    ----------
    .. [1] K. Killamsetty et al., "GRAD-MATCH: gradient matching based data subset
       selection for efficient deep model training", ICML 2021, Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import last_layer_gradients
    >>> G = last_layer_gradients(np.zeros((1, 2)), np.array([0]), np.array([[3.0]]))
    >>> G.dense()
    array([[-1.5, -0.5,  1.5,  0.5]])
    """
    logits = as_float_array(logits, "logits")
    n, n_classes = logits.shape
    if n == 0 or n_classes < 2:
        raise ValueError(
            "logits must have at least one row and two columns, got shape "
            f"{tuple(logits.shape)}"
        )
    labels = check_labels(y, n, n_classes)
    if is_torch(logits):
        torch = sys.modules["torch"]
        logits = logits.detach()
        labels = torch.as_tensor(labels, device=logits.device)
        at = torch.arange(n, device=logits.device), labels
        P = torch.softmax(logits, 1)
    else:
        at = np.arange(n), labels
        P = np.exp(logits - logits.max(1, keepdims=True))
        P /= P.sum(1, keepdims=True)
    P[at] = 0.0
    P[at] = -P.sum(1)
    H = None
    if features is not None:
        h = as_float_array(features, "features")
        check_same_kind(logits, h, ("logits", "features"))
        if h.shape[0] != n:
            raise ValueError(f"features must have {n} rows, got {h.shape[0]}")
        if is_torch(h):
            h = h.detach().to(logits.dtype)
            H = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
        else:
            H = np.ones((n, h.shape[1] + 1), dtype=logits.dtype)
            H[:, :-1] = h
    return Gradients.__new__(Gradients)._set([(P, H)], logits, labels)


def all_layer_gradients(model, X, y, chunk=2000):
    r"""
    Factor the gradients of the cross entropy in all layers of a network.

    A linear layer with inputs a and back-propagated errors :math:`\delta` gives the
    factors of :math:`\delta_i (a_i, 1)^\top`; a convolution, whose gradient is a sum of
    such products over positions, gives its rows themselves:

    .. math:: \langle g_i, g_j \rangle = \sum_{\text{linear}} (\delta_i^\top \delta_j)
        (\tilde a_i^\top \tilde a_j) + \sum_{\text{convolutions}} b_i^\top b_j.

    Parameters
    ----------
    model : torch.nn.Module
        A network whose parameters belong to ``Linear`` and ``Conv2d`` layers, each
        used once in a forward pass, and gives logits (n, C).
    X : array-like or Tensor of shape (n, ...)
        Samples.
    y : array-like or Tensor of shape (n,)
        Labels 0, ..., C - 1.
    chunk : int, default=2000
        Samples of one pass through the network.

    Returns
    -------
    Gradients
        The gradients, in the order of the layers in a forward pass; weights and bias
        of an output unit stand together. Of the kind of ``X``.

    Raises
    ------
    TypeError
        If ``model`` is no module or a type is wrong.
    ValueError
        If a layer with parameters is of another sort or used more than once, a layer
        of normalisation or dropout is in training mode, or shapes disagree.

    Notes
    -----
    One forward and one backward pass. n (o + a) numbers are stored for a linear layer,
    n o a for a convolution with o filters of a weights. Normalisation in
    training mode makes the gradient of a sample depend on the others.

    References
    ----------
    .. [1] I. Goodfellow, "Efficient per-example gradient computations", 2015,
       Section 4.

    Examples
    --------
    >>> import torch
    >>> from lib.coresets import MLP, all_layer_gradients
    >>> model = MLP(3, (4,), 2, generator=0)
    >>> G = all_layer_gradients(model, torch.ones(5, 3), torch.tensor([0, 1, 0, 1, 0]))
    >>> len(G), G.dim == sum(p.numel() for p in model.parameters())
    (5, True)
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check_integer("chunk", chunk)
    layers = _check_layers(model)
    like = next(model.parameters())
    original = X
    X = as_float_array(X, "X", ndim=(2, 3, 4))
    n = X.shape[0]
    labels = check_labels(y, n)
    if n == 0:
        raise ValueError("X must have at least one row, got none")
    parts, logits = [], []
    for rows in row_blocks(n, chunk):
        x = torch.as_tensor(X[rows]).detach().to(like)
        target = torch.as_tensor(labels[rows], device=like.device)
        z, factors = _factors(model, layers, x, target)
        logits.append(z)
        parts.append(factors)
    joined = []
    for pieces in zip(*parts, strict=True):
        left, right = zip(*pieces, strict=True)
        right = None if right[0] is None else torch.cat(right)
        joined.append((torch.cat(left), right))
    logits = torch.cat(logits)
    labels = torch.as_tensor(labels, device=logits.device)
    G = Gradients(joined, logits, labels)
    return G if is_torch(original) else G._map(to_numpy)


def _check_layers(model):
    import torch
    from torch import nn

    layers = []
    for name, layer in model.named_modules():
        mixes = isinstance(
            layer, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        )
        if mixes and layer.training:
            raise ValueError(
                f"model must be in evaluation mode (model.eval()), got {name!r}, a "
                f"{type(layer).__name__}, in training mode"
            )
        if not any(True for _ in layer.parameters(recurse=False)):
            continue
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            raise ValueError(
                "model must have parameters in Linear and Conv2d layers alone, got "
                f"{name!r}, a {type(layer).__name__}"
            )
        if isinstance(layer, nn.Conv2d) and (
            layer.groups != 1
            or isinstance(layer.padding, str)
            or layer.padding_mode != "zeros"
        ):
            raise ValueError(
                "model must have convolutions of one group, padded by a number of "
                f"zeros, got {name!r}: {layer}"
            )
        layers.append(layer)
    if not layers:
        raise ValueError("model must have a layer with parameters, got none")
    if any(p.dtype not in (torch.float32, torch.float64) for p in model.parameters()):
        raise TypeError("model must have float32 or float64 parameters")
    return layers


def _factors(model, layers, x, target):
    # Logits and the factors of each layer, in the order of the forward pass.
    import torch
    from torch.nn.functional import cross_entropy, unfold

    calls = []

    def remember(layer, inputs, output):
        if not output.requires_grad:
            output.requires_grad_()
        calls.append((layer, inputs[0].detach(), output))
        return output.clone()  # what follows may work in place

    hooks = [layer.register_forward_hook(remember) for layer in layers]
    try:
        with torch.enable_grad():
            z = model(x)
            if z.ndim != 2 or z.shape[0] != len(x):
                raise ValueError(
                    f"model must give logits of shape ({len(x)}, C), got "
                    f"{tuple(z.shape)}"
                )
            check_labels(target, len(x), z.shape[1])
            used = {id(layer) for layer, *_ in calls}
            if len(calls) != len(layers) or len(used) != len(layers):
                raise ValueError(
                    f"model must use each of its {len(layers)} layers once, got "
                    f"{len(calls)} uses of {len(used)} layers"
                )
            loss = cross_entropy(z, target, reduction="sum")
            errors = torch.autograd.grad(loss, [output for *_, output in calls])
    finally:
        for hook in hooks:
            hook.remove()
    factors = []
    for (layer, a, _), delta in zip(calls, errors, strict=True):
        if isinstance(layer, torch.nn.Linear):
            if a.ndim != 2:
                raise ValueError(
                    f"model must give linear layers 2-D inputs, got {tuple(a.shape)}"
                )
            if layer.bias is not None:
                a = torch.cat([a, torch.ones_like(a[:, :1])], dim=1)
            factors.append((delta, a))
            continue
        a = unfold(a, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = delta.flatten(2) @ a.transpose(1, 2)
        if layer.bias is not None:
            rows = torch.cat([rows, delta.flatten(2).sum(2, keepdim=True)], dim=2)
        factors.append((rows.flatten(1), None))
    return z.detach(), factors
