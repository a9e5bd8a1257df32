r"""
Classifiers of the experiments, split where the selection methods look at them.

Each network is :math:`z = W \tilde h(x)` with :math:`\tilde h = (h, 1)`: ``features``
gives :math:`h(x)`, the linear layer ``head`` the logits :math:`z`. The gradient of the
loss in the last layer is then the outer product of two short vectors,
:math:`(\mathrm{softmax}(z) - e_y)\, \tilde h^\top`. All features end in a rectifier, or
in a mean of rectified maps, so they are not negative.
"""

import math
import numbers

import torch
from torch import nn
from torch.nn import functional

from lib._backend import check_integer, make_rng

__all__ = ["MLP", "LeNet", "ResNet18"]


# A generator of one's own: torch's global one is neither read nor moved.
def _as_generator(generator):
    if isinstance(generator, torch.Generator):
        return generator
    if generator is not None and (
        isinstance(generator, bool) or not isinstance(generator, numbers.Integral)
    ):
        raise TypeError(
            "generator must be a torch.Generator, an integer or None, "
            f"got {generator!r}"
        )
    return torch.Generator().manual_seed(int(make_rng(generator).integers(2**63)))


# torch's own law for linear and convolutional layers, drawn in float64 from a
# generator: the float32 samplers differ between processors in the last digit.
def _layer(kind, *sizes, generator, **options):
    layer = nn.utils.skip_init(kind, *sizes, **options)
    bound = 1 / math.sqrt(layer.weight[0].numel())
    with torch.no_grad():
        for weight in layer.parameters():
            draw = torch.empty(weight.shape, dtype=torch.float64)
            weight.copy_(draw.uniform_(-bound, bound, generator=generator))
    return layer


# What the three share: logits are the head's answer to the features.
class _Classifier(nn.Module):
    def forward(self, x):
        return self.head(self.features(x))


class MLP(_Classifier):
    r"""
    Multilayer perceptron with rectifiers.

    .. math:: h^{(l)} = (W_l h^{(l-1)} + b_l)_+, \qquad z = W h^{(L)} + b

    Parameters
    ----------
    n_features : int, default=64
        Numbers in one sample; 64 are the pixels of a small digit.
    hidden : sequence of int, default=(64,)
        Widths of the hidden layers; empty for softmax regression.
    n_classes : int, default=10
        Number of logits.
    generator : torch.Generator, int or None, default=None
        Source of the initial weights; None takes fresh entropy, never torch's global
        state.

    Attributes
    ----------
    head : torch.nn.Linear
        The last layer.

    Raises
    ------
    TypeError
        If a size is no integer, or ``generator`` is none of the above.
    ValueError
        If a size is below 1, or there are fewer than two classes.

    Notes
    -----
    Samples of any shape are flattened.

    References
    ----------
    .. [1] D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations
       by back-propagating errors", Nature 1986, equations 1 and 2.

    Examples
    --------
    >>> import torch
    >>> from lib.coresets import MLP
    >>> model = MLP(generator=0)
    >>> model(torch.zeros(5, 8, 8)).shape, model.features(torch.zeros(5, 64)).shape
    (torch.Size([5, 10]), torch.Size([5, 64]))
    """

    def __init__(self, n_features=64, hidden=(64,), n_classes=10, *, generator=None):
        super().__init__()
        check_integer("n_features", n_features)
        check_integer("n_classes", n_classes, minimum=2)
        if not isinstance(hidden, (tuple, list)):
            raise TypeError(f"hidden must be a tuple of widths, got {hidden!r}")
        for width in hidden:
            check_integer("every width in hidden", width)
        generator = _as_generator(generator)
        widths = [n_features, *hidden]
        self.hidden = nn.ModuleList(
            _layer(nn.Linear, a, b, generator=generator)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.head = _layer(nn.Linear, widths[-1], n_classes, generator=generator)

    def features(self, x):
        """
        Give the input of the last layer.

        Parameters
        ----------
        x : Tensor of shape (n, ...)
            Samples, ``n_features`` numbers each.

        Returns
        -------
        Tensor of shape (n, hidden[-1])
            The features.
        """
        h = x.flatten(1)
        for layer in self.hidden:
            h = layer(h).relu()
        return h


class LeNet(_Classifier):
    r"""
    LeNet-5 without padding for images of 28 x 28 pixels: 44,426 weights.

    Two convolutions of 5 x 5 with 6 and 16 maps, each rectified and followed by a
    maximum over 2 x 2 pixels, then layers of 120, 84 and ``n_classes`` units:

    .. math:: 28 \to 24 \to 12 \to 8 \to 4, \qquad 16 \cdot 4^2 = 256 \to 120 \to 84
        \to 10

    Parameters
    ----------
    n_classes : int, default=10
        Number of logits.
    generator : torch.Generator, int or None, default=None
        Source of the initial weights; None takes fresh entropy, never torch's global
        state.

    Attributes
    ----------
    head : torch.nn.Linear
        The last layer, 84 inputs.

    Raises
    ------
    TypeError
        If ``n_classes`` is no integer, or ``generator`` is none of the above.
    ValueError
        If there are fewer than two classes.

    Notes
    -----
    The original reads images padded to 32 x 32, averages instead of taking maxima, and
    squashes instead of rectifying. With padding fc1 has 400 inputs in place of 256.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning
       applied to document recognition", Proceedings of the IEEE 1998, Section II.B.

    Examples
    --------
    >>> import torch
    >>> from lib.coresets import LeNet
    >>> model = LeNet(generator=0)
    >>> sum(weight.numel() for weight in model.parameters())
    44426
    >>> model.features(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 84])
    """

    def __init__(self, n_classes=10, *, generator=None):
        super().__init__()
        check_integer("n_classes", n_classes, minimum=2)
        generator = _as_generator(generator)
        self.conv1 = _layer(nn.Conv2d, 1, 6, 5, generator=generator)
        self.conv2 = _layer(nn.Conv2d, 6, 16, 5, generator=generator)
        self.fc1 = _layer(nn.Linear, 256, 120, generator=generator)
        self.fc2 = _layer(nn.Linear, 120, 84, generator=generator)
        self.head = _layer(nn.Linear, 84, n_classes, generator=generator)

    def features(self, x):
        """
        Give the input of the last layer.

        Parameters
        ----------
        x : Tensor of shape (n, 1, 28, 28)
            Images.

        Returns
        -------
        Tensor of shape (n, 84)
            The features.
        """
        h = functional.max_pool2d(self.conv1(x).relu(), 2)
        h = functional.max_pool2d(self.conv2(h).relu(), 2)
        h = self.fc1(h.flatten(1)).relu()
        return self.fc2(h).relu()


# Two normalised convolutions around which the input is added. Where the number of
# maps or their size changes, the input passes a 1 x 1 convolution.
class _Block(nn.Module):
    def __init__(self, inputs, outputs, stride, generator):
        super().__init__()

        def convolution(*sizes, **options):
            return _layer(nn.Conv2d, *sizes, bias=False, generator=generator, **options)

        self.conv1 = convolution(inputs, outputs, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                convolution(inputs, outputs, 1, stride=stride),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        h = self.bn1(self.conv1(x)).relu()
        h = self.bn2(self.conv2(h))
        return (h + self.shortcut(x)).relu()


class ResNet18(_Classifier):
    r"""
    Residual network of 18 layers for small images: 11.2 million weights.

    A convolution of 3 x 3 with 64 maps, then four stages of two residual blocks,

    .. math:: h_{l+1} = (F_l(h_l) + S_l(h_l))_+

    with 64, 128, 256 and 512 maps; each stage but the first halves the image. The
    features are the means of the last maps.

    Parameters
    ----------
    n_classes : int, default=10
        Number of logits.
    channels : int, default=3
        Channels of the images.
    generator : torch.Generator, int or None, default=None
        Source of the initial weights; None takes fresh entropy, never torch's global
        state.

    Attributes
    ----------
    head : torch.nn.Linear
        The last layer, 512 inputs.

    Raises
    ------
    TypeError
        If a number is no integer, or ``generator`` is none of the above.
    ValueError
        If ``channels < 1``, or there are fewer than two classes.

    Notes
    -----
    The original's stem, 7 x 7 with stride 2 and a maximum, would leave one pixel of
    an image of 32 x 32. Batch normalisation makes a gradient in training mode depend
    on the whole batch: select in evaluation mode.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image
       recognition", CVPR 2016, Table 1 and Section 4.2.

    Examples
    --------
    >>> import torch
    >>> from lib.coresets import ResNet18
    >>> model = ResNet18(generator=0).eval()
    >>> sum(weight.numel() for weight in model.parameters())
    11173962
    >>> with torch.no_grad():
    ...     model.features(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 512])
    """

    def __init__(self, n_classes=10, *, channels=3, generator=None):
        super().__init__()
        check_integer("n_classes", n_classes, minimum=2)
        check_integer("channels", channels)
        generator = _as_generator(generator)
        self.conv = _layer(
            nn.Conv2d, channels, 64, 3, padding=1, bias=False, generator=generator
        )
        self.bn = nn.BatchNorm2d(64)
        blocks = []
        for inputs, outputs, stride in (
            (64, 64, 1),
            (64, 128, 2),
            (128, 256, 2),
            (256, 512, 2),
        ):
            blocks.append(_Block(inputs, outputs, stride, generator))
            blocks.append(_Block(outputs, outputs, 1, generator))
        self.blocks = nn.Sequential(*blocks)
        self.head = _layer(nn.Linear, 512, n_classes, generator=generator)

    def features(self, x):
        """
        Give the input of the last layer.

        Parameters
        ----------
        x : Tensor of shape (n, channels, height, width)
            Images, 32 x 32 pixels or another size that three halvings leave a pixel of.

        Returns
        -------
        Tensor of shape (n, 512)
            The features.
        """
        h = self.bn(self.conv(x)).relu()
        return self.blocks(h).mean((2, 3))
