r"""
The ReLU program: gated weights that stay in the cones of their own patterns.

.. math:: \min_{v, w} \tfrac12 \Bigl\lVert \sum_i D_i X (v_i - w_i) - y \Bigr\rVert^2
   + \beta \sum_i (\lVert v_i \rVert + \lVert w_i \rVert), \qquad
   (2 D_i - I) X v_i \ge 0, \; (2 D_i - I) X w_i \ge 0

It has the value of a ReLU network of width n + 1 or more with weight decay. Column
generation keeps few neurons and asks which neuron is missing.
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from lib.convexnn.gated import Fit, is_solved
from lib.convexnn.oracles import project_cone

__all__ = []

#: Cells that enter in one round.
ENTERING = 60

#: Rounds after which the gap should have fallen to a tenth.
PATIENCE = 6


class ReLUProgram:
    # The program as numpy arrays: X (n, d), masks (n, P) bool, y (n,). The products
    # over all patterns may run on another device.
    def __init__(self, X, masks, y, beta, device=None):
        self.X, self.masks, self.y, self.beta = X, masks, y, beta
        self.signs = np.where(masks, 1.0, -1.0)
        self._device = device
        if device is not None:
            import torch

            self._X = torch.as_tensor(X, device=device)
            self._masks = torch.as_tensor(masks.astype(np.float64), device=device)

    def correlate(self, r):
        # X^T D_i r for every pattern, as columns.
        if self._device is None:
            return self.X.T @ (self.masks * r[:, None])
        import torch

        weighted = self._masks * torch.as_tensor(r, device=self._device)[:, None]
        return (self._X.T @ weighted).cpu().numpy()

    def activations(self, neurons, patterns, signs):
        # Signed outputs of neurons (d, K) on their patterns.
        return signs * self.masks[:, patterns] * (self.X @ neurons)


def polar_bound(c, p):
    # Lengths that bound those of the projections on cones, columnwise: for a vector p
    # that minus the polar cone holds and t >= 0 it is at most |c + t p|.
    square = (p * p).sum(axis=0)
    t = np.maximum(-(c * p).sum(axis=0), 0.0)
    t = np.divide(t, square, out=np.zeros_like(t), where=square > 0)
    return np.linalg.norm(c + t * p, axis=0)


class Pricing:
    # The oracle over all cells. Of every cone it keeps the last difference between a
    # vector and its projection, which bounds the next projection without computing it.
    def __init__(self, program):
        self.program = program
        self.polar = np.zeros((2, *(program.X.shape[1], program.masks.shape[1])))

    def __call__(self, residual, kept):
        # Largest correlation over all neurons, and the neurons worth adding as
        # (value, pattern, sign, unit neuron); those of cells in ``kept`` always.
        C = self.program.correlate(residual)
        C = np.stack([C, -C])
        bound = np.stack(
            [polar_bound(c, p) for c, p in zip(C, self.polar, strict=True)]
        )
        best, found = 0.0, []
        for flat in np.argsort(-bound, axis=None):
            side, i = np.unravel_index(flat, bound.shape)
            cell = (int(i), 1 - 2 * int(side))
            if bound[side, i] <= max(best, self.program.beta) and cell not in kept:
                continue
            cone = self.program.signs[:, i : i + 1] * self.program.X
            u = project_cone(cone, C[side, :, i])
            self.polar[side, :, i] = u - C[side, :, i]
            size = np.linalg.norm(u)
            best = max(best, size)
            if size > self.program.beta or (cell in kept and size > 0):
                found.append((size, *cell, u / size))
        # Cells that were passed over have no more than the larger of these two.
        return max(best, min(float(bound.max()), self.program.beta)), found


def solve_column_generation(program, tol, max_iter, warm=None):
    # Fit whose weights are (neurons (d, K), patterns (K,), signs (K,)). The oracle
    # prices all cells; its neurons enter, and their weights are found by a lasso.
    # Where that stalls, an interior-point method takes the cells that are in.
    d = program.X.shape[1]
    neurons, patterns, signs = warm or (np.zeros((d, 0)), np.zeros(0, int), np.zeros(0))
    pricing, history = Pricing(program), []
    y, beta = program.y, program.beta
    dual, settled = -np.inf, 0
    for step in range(max_iter + 1):
        fitted = program.activations(neurons, patterns, signs).sum(axis=1)
        residual = y - fitted
        size = np.linalg.norm(neurons, axis=0)
        objective = float(0.5 * residual @ residual + beta * size.sum())
        kept = set(zip(patterns.tolist(), signs.astype(int).tolist(), strict=True))
        value, found = pricing(residual, kept)
        v = residual * min(1.0, beta / max(value, 1e-300))
        dual = max(dual, float(y @ v - 0.5 * v @ v))
        history.append((step, objective, dual))
        # Twice the interior-point method without progress: rounding is what is left.
        if is_solved(objective, dual, tol) or step == max_iter or settled == 2:
            break
        found.sort(key=lambda neuron: -neuron[0])
        new = [f for f in found if f[1:3] not in kept][:ENTERING]
        if len(history) > PATIENCE and _stalls(history):
            patterns = np.append(patterns, [f[1] for f in new]).astype(int)
            signs = np.append(signs, [f[2] for f in new])
            neurons = _interior_point(program, patterns, signs)
            settled = settled + 1 if not new else 0
        else:
            entering = new + [f for f in found if f[1:3] in kept]
            units = np.column_stack([neurons / size, *[f[3] for f in entering]])
            patterns = np.append(patterns, [f[1] for f in entering]).astype(int)
            signs = np.append(signs, [f[2] for f in entering])
            weights = np.append(size, np.zeros(len(entering)))
            H = program.activations(units, patterns, signs)
            neurons = units * _nonnegative_lasso(H, y, beta, weights)
        neurons, patterns, signs = _merge(neurons, patterns, signs)
    return Fit((neurons, patterns, signs), objective, dual, history)


def _stalls(history):
    # Whether the gap has not fallen to a tenth in the last rounds.
    gap = [objective - dual for _, objective, dual in history]
    return min(gap[-PATIENCE:]) > 0.1 * gap[-PATIENCE - 1]


def _merge(neurons, patterns, signs):
    # One neuron a cell: cones are convex, and the norm of a sum is at most the sum.
    used = (neurons != 0).any(axis=0)
    cells, inverse = np.unique(
        np.column_stack([patterns, signs]).astype(int)[used],
        axis=0,
        return_inverse=True,
    )
    merged = np.zeros((neurons.shape[0], len(cells)))
    np.add.at(merged.T, inverse.ravel(), neurons[:, used].T)
    return merged, cells[:, 0], cells[:, 1].astype(float)


def _nonnegative_lasso(H, y, beta, c):
    # min 1/2 |H c - y|^2 + beta 1'c over c >= 0, from a feasible c: Lawson and Hanson's
    # active sets on the normal equations.
    G, b = H.T @ H, H.T @ y - beta
    tiny = 1e-12 * max(np.abs(b).max(), 1e-300)
    support = c > 0
    for _ in range(10 * len(c)):
        while support.any():
            index = np.flatnonzero(support)
            z = _solve(G[np.ix_(index, index)], b[index])
            if z.min() > 0:
                c = np.zeros_like(c)
                c[index] = z
                break
            down = z <= 0
            ratio = c[index][down] / np.maximum((c[index] - z)[down], 1e-300)
            t = ratio.min()
            c[index] += t * (z - c[index])
            out = index[down][ratio <= t]
            c[out], support[out] = 0.0, False
        slope = b - G @ c
        slope[support] = -np.inf
        entering = int(np.argmax(slope))
        if slope[entering] <= tiny:
            break
        support[entering] = True
    return c


def _solve(G, b):
    # Cholesky's method, or the shortest solution where G is not safely definite.
    try:
        factor = cho_factor(G, check_finite=False)
        pivots = np.diag(factor[0])
        if pivots.min() > 1e-6 * pivots.max():
            return cho_solve(factor, b, check_finite=False)
    except np.linalg.LinAlgError:
        pass
    return np.linalg.lstsq(G, b, rcond=1e-13)[0]


def _interior_point(program, patterns, signs, max_iter=200):
    # Neurons (d, K) of the program on these cells, as cvxpy's solver finds them. They
    # are put into their cones, which an interior point leaves by a little.
    import cvxpy as cp

    cones = program.signs[:, patterns]
    V = cp.Variable((program.X.shape[1], len(patterns)))
    H = program.X @ V
    fitted = cp.multiply(program.masks[:, patterns].astype(float), H) @ signs
    loss = 0.5 * cp.sum_squares(fitted - program.y)
    penalty = program.beta * cp.sum(cp.norm(V, 2, axis=0))
    problem = cp.Problem(cp.Minimize(loss + penalty), [cp.multiply(cones, H) >= 0])
    problem.solve(solver=cp.CLARABEL, max_iter=max_iter, max_threads=1)
    neurons = np.array(V.value)
    largest = np.linalg.norm(neurons, axis=0).max()
    for k, neuron in enumerate(neurons.T):
        if np.linalg.norm(neuron) > 1e-7 * largest:
            neurons[:, k] = project_cone(cones[:, k : k + 1] * program.X, neuron)
        else:
            neurons[:, k] = 0.0
    return neurons


def solve_interior_point(program, tol, max_iter):
    # The reference: all cells at once.
    P = program.masks.shape[1]
    patterns, signs = np.tile(np.arange(P), 2), np.repeat([1.0, -1.0], P)
    neurons = _interior_point(program, patterns, signs, min(max_iter, 200))
    warm = _merge(neurons, patterns, signs)
    return solve_column_generation(program, np.inf, 0, warm)


def prune(H, c):
    # Caratheodory: non-negative weights on at most n columns with the same H c and no
    # larger sum.
    c = c.copy()
    while True:
        used = np.flatnonzero(c > 0)
        if len(used) <= H.shape[0]:
            return c
        z = np.linalg.svd(H[:, used], full_matrices=True)[2][-1]
        z = z if z.sum() >= 0 else -z
        positive = z > 1e-12 * np.abs(z).max()
        ratio = np.full(len(used), np.inf)
        ratio[positive] = c[used][positive] / z[positive]
        out = int(np.argmin(ratio))
        c[used] = np.maximum(c[used] - ratio[out] * z, 0.0)
        c[used[out]] = 0.0
