"""Fixtures for all tests: array kinds and devices."""

import dataclasses

import numpy as np
import pytest
import torch

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@dataclasses.dataclass(frozen=True)
class Backend:
    """An array kind on a device: makes its arrays and fetches them back."""

    kind: str
    device: str = "cpu"

    def asarray(self, x, dtype="float64"):
        x = np.array(x, dtype=dtype)
        return x if self.kind == "numpy" else torch.tensor(x, device=self.device)

    def numpy(self, x):
        return x if self.kind == "numpy" else x.detach().cpu().numpy()

    def owns(self, x, dtype):
        """Tell whether ``x`` is of this kind, on this device, and of this dtype."""
        if self.kind == "numpy":
            return isinstance(x, np.ndarray) and x.dtype == dtype
        return (
            torch.is_tensor(x)
            and x.device.type == self.device
            and x.dtype == getattr(torch, dtype)
        )


@pytest.fixture(params=DEVICES)
def device(request):
    """A device for tests of torch code: "cpu", and "cuda" where there is one."""
    return request.param


BACKENDS = [Backend("numpy")] + [Backend("torch", device) for device in DEVICES]


@pytest.fixture(params=BACKENDS, ids=lambda b: f"{b.kind}-{b.device}")
def backend(request):
    """An array kind, numpy or torch, the latter on every device there is."""
    return request.param
