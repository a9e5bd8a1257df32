r"""
The gated ReLU program: a group lasso with one group of weights per pattern.

.. math:: \min_u \tfrac12 \Bigl\lVert \sum_i D_i X u_i - y \Bigr\rVert^2
   + \beta \sum_i \lVert u_i \rVert

Its dual asks for the point of :math:`\{v : \lVert X^\top D_i v \rVert \le \beta\}`
nearest to :math:`y`. Every residual, shrunk into that set, bounds the distance of a fit
from the optimum.
"""

from typing import NamedTuple

import numpy as np

__all__ = []



class Fit(NamedTuple):
    # Solution of one program: weights, value, dual value, rows of (steps, value, dual).
    weights: object
    objective: float
    dual_objective: float
    history: list

    @property
    def gap(self):
        return max(0.0, self.objective - self.dual_objective)


def is_solved(objective, dual, tol):
    # Whether the duality gap is at most ``tol`` times the objective.
    return objective - dual <= tol * abs(objective)


class GatedProgram:
    # The program as torch tensors on one device, for one target: X (n, d), masks
    # (n, P) as floats, y (n,).
    def __init__(self, X, masks, y, beta):
        self.X, self.masks, self.y, self.beta = X, masks, y, beta
        self._kernel = None

    @property
    def kernel(self):
        if self._kernel is None:
            self._kernel = self.X @ self.X.T
        return self._kernel

    def predict(self, U, active=None):
        # Sum over the patterns of D_i X u_i, active ones only.
        if active is None:
            active = (U != 0).any(dim=0).nonzero()[:, 0]
        if 4 * len(active) < U.shape[1]:
            return ((self.X @ U[:, active]) * self.masks[:, active]).sum(dim=1)
        return ((self.X @ U) * self.masks).sum(dim=1)

    def correlate(self, v):
        # X^T D_i v for every pattern, as columns.
        return self.X.T @ (self.masks * v[:, None])

    def evaluate(self, U):
        # (objective, dual objective, correlations) at a fit.
        residual = self.y - self.predict(U)
        C = self.correlate(residual)
        objective = 0.5 * residual @ residual + self.beta * U.norm(dim=0).sum()
        shrink = min(1.0, self.beta / max(float(C.norm(dim=0).max()), 1e-300))
        v = shrink * residual
        return float(objective), float(self.y @ v - 0.5 * v @ v), C


def solve_ssn(program, U, tol, max_iter):
    # Augmented Lagrangian of the dual; its inner problems by semismooth Newton. The
    # generalised Hessian is I + s (XX^T o M diag(c) M^T) + s B B^T, n x n whatever d
    # is, since sum_i c_i D_i XX^T D_i = XX^T o (M diag(c) M^T).
    import torch

    X, masks, y, beta = program.X, program.masks, program.y, program.beta
    objective, dual, _ = program.evaluate(U)
    v = y - program.predict(U)
    history = [(0, objective, dual)]
    # The multiplier moves in steps of sigma times the violation of the constraints.
    sigma = 1.0 / max(float((X * X).sum(dim=1).mean()), 1e-300)
    newton = 0

    def value_of(v, Q):
        # Value of the inner problem, and the lengths of the columns of Q.
        size = Q.norm(dim=0)
        over = (size - sigma * beta).clamp(min=0)
        return float(0.5 * v @ v - y @ v + over @ over / (2 * sigma)), size

    def slope_of(v, Q, size):
        index = (size > sigma * beta).nonzero()[:, 0]
        Q, size = Q[:, index], size[index]
        unit = Q / size
        kept = unit * (size - sigma * beta)
        fitted = ((X @ kept) * masks[:, index]).sum(dim=1)
        return v - y + fitted, index, unit, size, kept

    best, idle, first = U, 0, sigma
    while newton < max_iter and not is_solved(objective, dual, tol) and idle < 5:
        Q = U + sigma * program.correlate(v)
        value, size = value_of(v, Q)
        slope, index, unit, size, kept = slope_of(v, Q, size)
        aim = 0.1 * min(1.0, ((objective - dual) / objective) ** 0.5)
        goal = max(aim * float(slope.norm()), 1e-14 * float(y.norm()))
        while float(slope.norm()) > goal and newton < max_iter:
            M = masks[:, index]
            c = 1 - sigma * beta / size  # between 0 and 1
            A = M * (sigma * c).sqrt()
            B = (X @ unit) * M * (sigma * (1 - c)).sqrt()
            hessian = _hessian(program.kernel, A, B)
            factor, failed = torch.linalg.cholesky_ex(hessian)
            if failed:
                break  # sigma is too large for float64
            step = -torch.cholesky_solve(slope[:, None], factor)[:, 0]
            newton += 1
            decrease = float(slope @ step)
            # Q is affine in v: a trial step needs no product with the points.
            turn, t = sigma * program.correlate(step), 1.0
            while True:
                new, size = value_of(v + t * step, Q + t * turn)
                if new <= value + 1e-4 * t * decrease:
                    break
                if abs(t * decrease) < 1e-14 * max(1.0, abs(value)):
                    break
                t /= 2
            v, Q = v + t * step, Q + t * turn
            small = abs(decrease) < 1e-15 * max(1.0, abs(value))
            value = new
            slope, index, unit, size, kept = slope_of(v, Q, size)
            if small:
                break  # rounding is all that is left
        U = torch.zeros_like(U)
        U[:, index] = kept
        # Every fit bounds the optimum from above and every residual from below.
        above, below, _ = program.evaluate(U)
        gap = objective - dual
        if above <= objective:
            best, objective = U, above
        dual = max(dual, below)
        history.append((newton, objective, dual))
        if objective - dual > 0.2 * gap:
            sigma *= 5.0
        idle = idle + 1 if objective - dual > 0.9 * gap and sigma > 1e6 * first else 0
    return Fit(best, objective, dual, history)


def _hessian(kernel, A, B):
    # I + kernel o A A^T + B B^T. On a CPU only the lower half, all that Cholesky's
    # method reads, at half the operations.
    if kernel.is_cuda or A.shape[1] == 0:
        hessian = kernel * (A @ A.T)
        hessian.addmm_(B, B.T)
    else:
        import torch
        from scipy.linalg.blas import dsyrk

        # The BLAS counts by columns: what it takes for A^T is A, for upper is lower.
        upper = dsyrk(1.0, A.numpy().T, trans=1)
        upper *= kernel.numpy().T
        options = {"beta": 1.0, "c": upper, "trans": 1, "overwrite_c": True}
        hessian = torch.from_numpy(dsyrk(1.0, B.numpy().T, **options).T)
    hessian.diagonal().add_(1)
    return hessian


def solve_fista(program, U, tol, max_iter):
    # Accelerated proximal gradient with restarts; the step from the largest
    # eigenvalue of X^T X times the most patterns that are active on one row.
    import torch

    y, beta = program.y, program.beta
    lipschitz = _largest_eigenvalue(program)
    objective, dual, _ = program.evaluate(U)
    history, V, t = [(0, objective, dual)], U, 1.0
    for k in range(1, max_iter + 1):
        residual = y - program.predict(V)
        step = V + program.correlate(residual) / lipschitz
        size = step.norm(dim=0)
        new = step * torch.clamp(1 - beta / lipschitz / size.clamp_min(1e-300), min=0)
        if float(((V - new) * (new - U)).sum()) > 0:
            t, V = 1.0, U if k > 1 else new
        nxt = (1 + (1 + 4 * t * t) ** 0.5) / 2
        V = new + (t - 1) / nxt * (new - U)
        U, t = new, nxt
        if k % 10 == 0 or k == max_iter:
            objective, dual, _ = program.evaluate(U)
            history.append((k, objective, dual))
            if is_solved(objective, dual, tol):
                break
    return Fit(U, objective, dual, history)


def _largest_eigenvalue(program, n_steps=30):
    # Of Z Z^T by power iteration, enlarged so that it bounds the truth.
    import torch

    v = torch.ones_like(program.y)
    value = 1.0
    for _ in range(n_steps):
        v = v / v.norm()
        v = ((program.X @ program.correlate(v)) * program.masks).sum(dim=1)
        value = float(v.norm())
    return 1.02 * max(value, 1e-300)


def solve_cvxpy(program, U, tol, max_iter):
    # The reference: an interior-point method on the program as it is written.
    import cvxpy as cp
    import torch

    X = program.X.cpu().numpy()
    masks = program.masks.cpu().numpy()
    y = program.y.cpu().numpy()
    variable = cp.Variable(tuple(U.shape))
    fitted = cp.sum(cp.multiply(masks, X @ variable), axis=1)
    loss = 0.5 * cp.sum_squares(fitted - y)
    penalty = program.beta * cp.sum(cp.norm(variable, 2, axis=0))
    cp.Problem(cp.Minimize(loss + penalty)).solve(
        solver=cp.CLARABEL, max_iter=min(max_iter, 200), max_threads=1
    )
    U = torch.as_tensor(np.array(variable.value), dtype=U.dtype, device=U.device)
    objective, dual, _ = program.evaluate(U)
    return Fit(U, objective, dual, [(0, objective, dual)])
