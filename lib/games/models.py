r"""
Generators and discriminators: perceptrons, small convolutional networks.

Every discriminator ends in a *logit* :math:`l`, one number a sample and no sigmoid:
:math:`D(x) = 1 / (1 + e^{-l(x)})`. The same network without that reading is a
critic. Images are scaled to [-1, 1] and have the shape (n, channels, size, size).
"""

import math
import numbers

import numpy as np
import torch
from torch import nn

from lib._backend import check_integer, check_real, make_rng

__all__ = [
    "DCGANDiscriminator",
    "DCGANGenerator",
    "MLPDiscriminator",
    "MLPGenerator",
    "digits_networks",
    "ring_networks",
]


# A generator of one's own: torch's global one is neither read nor moved. An integer
# seeds it, None takes fresh entropy, and a Generator goes on with its stream.
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


# Weights are drawn in float64, whatever they are stored in: the float32 samplers of
# torch differ between processors in the last digit.
def _fill(weight, generator, bound=None, *, std=None, mean=0.0):
    draw = torch.empty(weight.shape, dtype=torch.float64)
    if std is None:
        draw.uniform_(-bound, bound, generator=generator)
    else:
        draw.normal_(mean, std, generator=generator)
    with torch.no_grad():
        weight.copy_(draw)


# torch's own law for linear and convolutional layers, from a generator.
def _layer(kind, *sizes, generator, std=None, **options):
    layer = nn.utils.skip_init(kind, *sizes, **options)
    bound = 1 / math.sqrt(layer.weight[0].numel())
    if std is None:
        _fill(layer.weight, generator, bound)
    else:
        _fill(layer.weight, generator, std=std)
    _fill(layer.bias, generator, bound)
    return layer


def _check_shape(name, shape):
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    for size in shape:
        check_integer(f"every entry of {name}", size)
    return shape


def _check_hidden(hidden):
    if not isinstance(hidden, (tuple, list)) or not hidden:
        raise ValueError(f"hidden must list at least one width, got {hidden!r}")
    for width in hidden:
        check_integer("every width in hidden", width)


def _check_image(img_size, channels, width):
    for name, value in (("channels", channels), ("width", width)):
        check_integer(name, value)
    check_integer("img_size", img_size, minimum=8)
    if img_size % 4:
        raise ValueError(
            f"img_size must be a multiple of 4, such as 28 or 32, got {img_size}"
        )


class MLPGenerator(nn.Module):
    r"""
    Multilayer perceptron from noise to samples.

    Linear layers with leaky rectifiers; batch normalisation after every hidden layer
    but the first. The default is the generator of the report's plain GAN: 100, 128,
    256, 512, 1024, 784.

    Parameters
    ----------
    latent_dim : int, default=100
        Dimension of the noise.
    out_shape : tuple of int, default=(1, 28, 28)
        Shape of one sample.
    hidden : sequence of int, default=(128, 256, 512, 1024)
        Widths of the hidden layers.
    batch_norm : bool, default=True
        Whether to normalise.
    slope : float, default=0.2
        Slope of the rectifier below zero; 0 is the plain rectifier.
    tanh : bool, default=True
        Whether samples are squeezed into [-1, 1], as images need.
    bn_eps : float, default=1e-5
        Added to the batch variance. The report's figures were made with 0.8.
    generator : torch.Generator, int or None, default=None
        Source of the initial weights; None takes fresh entropy, never torch's
        global state.

    Attributes
    ----------
    latent_dim : int
        Dimension of the noise.
    out_shape : tuple of int
        Shape of one sample.

    Raises
    ------
    TypeError
        If a size is no integer or the generator is of a wrong type.
    ValueError
        If a size is not positive or a number out of range.

    See Also
    --------
    MLPDiscriminator : Its opponent.

    Notes
    -----
    A batch costs two operations a weight and sample. Weights have torch's law for
    linear layers, uniform on :math:`\pm 1/\sqrt{\text{inputs}}`.

    References
    ----------
    .. [1] I. Goodfellow et al., "Generative adversarial nets", NeurIPS 2014.

    Examples
    --------
    >>> import torch
    >>> from lib.games import MLPGenerator
    >>> G = MLPGenerator(generator=0)
    >>> tuple(G(torch.zeros(5, G.latent_dim)).shape)
    (5, 1, 28, 28)
    """

    def __init__(
        self,
        latent_dim=100,
        out_shape=(1, 28, 28),
        hidden=(128, 256, 512, 1024),
        *,
        batch_norm=True,
        slope=0.2,
        tanh=True,
        bn_eps=1e-5,
        generator=None,
    ):
        check_integer("latent_dim", latent_dim)
        _check_hidden(hidden)
        check_real("slope", slope, allow_zero=True)
        check_real("bn_eps", bn_eps)
        generator = _as_generator(generator)
        super().__init__()
        self.latent_dim = int(latent_dim)
        self.out_shape = _check_shape("out_shape", out_shape)
        layers, before = [], latent_dim
        for k, width in enumerate(hidden):
            layers.append(_layer(nn.Linear, before, width, generator=generator))
            if batch_norm and k:
                layers.append(nn.BatchNorm1d(width, bn_eps))
            layers.append(nn.LeakyReLU(slope))
            before = width
        size = math.prod(self.out_shape)
        layers.append(_layer(nn.Linear, before, size, generator=generator))
        if tanh:
            layers.append(nn.Tanh())
        layers.append(nn.Unflatten(1, self.out_shape))
        self.layers = nn.Sequential(*layers)

    def forward(self, z):
        """
        Map noise to samples.

        Parameters
        ----------
        z : Tensor of shape (n, latent_dim)
            Noise.

        Returns
        -------
        Tensor of shape (n, ...)
            Samples.
        """
        return self.layers(z)


class MLPDiscriminator(nn.Module):
    r"""
    Multilayer perceptron from samples to one logit each.

    The default is the discriminator of the report's plain GAN, 784, 512, 256, 1,
    and, as it ends without a sigmoid, the critic of its WGAN too.

    Parameters
    ----------
    in_shape : tuple of int, default=(1, 28, 28)
        Shape of one sample.
    hidden : sequence of int, default=(512, 256)
        Widths of the hidden layers.
    slope : float, default=0.2
        Slope of the rectifier below zero; 0 is the plain rectifier.
    generator : torch.Generator, int or None, default=None
        Source of the initial weights; None takes fresh entropy, never torch's
        global state.

    Raises
    ------
    TypeError
        If a size is no integer or the generator is of a wrong type.
    ValueError
        If a size is not positive or a number out of range.

    See Also
    --------
    MLPGenerator : Its opponent.

    Notes
    -----
    A batch costs two operations a weight and sample.

    References
    ----------
    .. [1] I. Goodfellow et al., "Generative adversarial nets", NeurIPS 2014.

    Examples
    --------
    >>> import torch
    >>> from lib.games import MLPDiscriminator
    >>> D = MLPDiscriminator(generator=0)
    >>> tuple(D(torch.zeros(5, 1, 28, 28)).shape)
    (5,)
    """

    def __init__(
        self,
        in_shape=(1, 28, 28),
        hidden=(512, 256),
        *,
        slope=0.2,
        generator=None,
    ):
        _check_hidden(hidden)
        check_real("slope", slope, allow_zero=True)
        generator = _as_generator(generator)
        super().__init__()
        layers, before = [nn.Flatten()], math.prod(_check_shape("in_shape", in_shape))
        for width in hidden:
            layers.append(_layer(nn.Linear, before, width, generator=generator))
            layers.append(nn.LeakyReLU(slope))
            before = width
        layers.append(_layer(nn.Linear, before, 1, generator=generator))
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        """
        Score samples.

        Parameters
        ----------
        x : Tensor of shape (n, ...)
            Samples.

        Returns
        -------
        Tensor of shape (n,)
            Logits.
        """
        return self.layers(x)[:, 0]


class DCGANGenerator(nn.Module):
    r"""
    Convolutional generator: a small image, twice doubled.

    A linear layer makes ``2 * width`` maps a quarter of the image's size; twice
    they are doubled by repeating pixels and convolved (3 x 3) to ``2 * width`` and
    ``width`` maps, with batch normalisation and leaky rectifiers; a last convolution
    and tanh make the image.

    Parameters
    ----------
    img_size : int, default=32
        Height and width, a multiple of 4 such as 28 or 32.
    latent_dim : int, default=100
        Dimension of the noise.
    channels : int, default=1
        Channels of the image.
    width : int, default=64
        Number of maps of the last hidden layer.
    bn_eps : float, default=1e-5
        Added to the batch variance. The report's figures were made with 0.8, its
        first normalisation excepted.
    generator : torch.Generator, int or None, default=None
        Source of the initial weights; None takes fresh entropy, never torch's
        global state.

    Attributes
    ----------
    latent_dim : int
        Dimension of the noise.
    out_shape : tuple of int
        Shape of one sample.

    Raises
    ------
    TypeError
        If a size is no integer or the generator is of a wrong type.
    ValueError
        If a size is not positive, the image not a multiple of 4, or a number out of
        range.

    See Also
    --------
    DCGANDiscriminator : Its opponent.

    Notes
    -----
    About ``27 * width**2 * img_size**2`` multiplications an image. Convolutions are
    drawn from N(0, 0.02^2) and scales of the normalisation from N(1, 0.02^2), as in
    [1]_; the linear layer has torch's law. The paper doubles by transposed
    convolutions.

    References
    ----------
    .. [1] A. Radford, L. Metz and S. Chintala, "Unsupervised representation learning
       with deep convolutional generative adversarial networks", ICLR 2016,
       Section 4.

    Examples
    --------
    >>> import torch
    >>> from lib.games import DCGANGenerator
    >>> G = DCGANGenerator(28, generator=0)
    >>> tuple(G(torch.zeros(5, G.latent_dim)).shape)
    (5, 1, 28, 28)
    """

    def __init__(
        self,
        img_size=32,
        latent_dim=100,
        channels=1,
        width=64,
        *,
        bn_eps=1e-5,
        generator=None,
    ):
        _check_image(img_size, channels, width)
        check_integer("latent_dim", latent_dim)
        check_real("bn_eps", bn_eps)
        options = {"generator": _as_generator(generator), "std": 0.02}
        generator = options["generator"]
        super().__init__()
        self.latent_dim = int(latent_dim)
        self.out_shape = (channels, img_size, img_size)
        small, wide = img_size // 4, 2 * width
        layers = [
            _layer(nn.Linear, latent_dim, wide * small**2, generator=generator),
            nn.Unflatten(1, (wide, small, small)),
            _batch_norm(wide, 1e-5, generator),
        ]
        for width_in, width_out in ((wide, wide), (wide, width)):
            layers += [
                nn.Upsample(scale_factor=2),
                _layer(nn.Conv2d, width_in, width_out, 3, padding=1, **options),
                _batch_norm(width_out, bn_eps, generator),
                nn.LeakyReLU(0.2),
            ]
        layers += [_layer(nn.Conv2d, width, channels, 3, padding=1, **options)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z):
        """
        Map noise to images.

        Parameters
        ----------
        z : Tensor of shape (n, latent_dim)
            Noise.

        Returns
        -------
        Tensor of shape (n, channels, img_size, img_size)
            Images in [-1, 1].
        """
        return self.layers(z)


class DCGANDiscriminator(nn.Module):
    r"""
    Convolutional discriminator: four convolutions of stride two and one logit.

    Widths are 1, 2, 4 and 8 times ``width``; each convolution (3 x 3) is followed by
    a leaky rectifier, by dropout of whole maps, and, but for the first, by batch
    normalisation.

    Parameters
    ----------
    img_size : int, default=32
        Height and width, a multiple of 4 such as 28 or 32.
    channels : int, default=1
        Channels of the image.
    width : int, default=16
        Maps of the first convolution.
    critic : bool, default=False
        Leave out dropout and batch normalisation: a critic's value is a function of
        one image, and clipping the weights must bound its slope.
    dropout : float, default=0.25
        Probability that a map is dropped.
    bn_eps : float, default=1e-5
        Added to the batch variance. The report's figures were made with 0.8.
    generator : torch.Generator, int or None, default=None
        Source of the initial weights and of the dropped maps; None takes fresh
        entropy, never torch's global state.

    Raises
    ------
    TypeError
        If a size is no integer or the generator is of a wrong type.
    ValueError
        If a size is not positive, the image not a multiple of 4, or a number out of
        range.

    See Also
    --------
    DCGANGenerator : Its opponent.

    Notes
    -----
    About ``3.4 * width**2 * img_size**2`` multiplications an image. Which maps are
    dropped is part of ``state_dict``, so a resumed training drops the same ones.

    References
    ----------
    .. [1] A. Radford, L. Metz and S. Chintala, "Unsupervised representation learning
       with deep convolutional generative adversarial networks", ICLR 2016,
       Section 3.

    Examples
    --------
    >>> import torch
    >>> from lib.games import DCGANDiscriminator
    >>> D = DCGANDiscriminator(28, generator=0)
    >>> tuple(D(torch.zeros(5, 1, 28, 28)).shape)
    (5,)
    """

    def __init__(
        self,
        img_size=32,
        channels=1,
        width=16,
        *,
        critic=False,
        dropout=0.25,
        bn_eps=1e-5,
        generator=None,
    ):
        _check_image(img_size, channels, width)
        check_real("bn_eps", bn_eps)
        check_real("dropout", dropout, allow_zero=True)
        if dropout >= 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout!r}")
        options = {"generator": _as_generator(generator), "std": 0.02}
        generator = options["generator"]
        super().__init__()
        layers, before, side = [], channels, img_size
        for k in range(4):
            after = width * 2**k
            conv = {"stride": 2, "padding": 1} | options
            layers += [_layer(nn.Conv2d, before, after, 3, **conv), nn.LeakyReLU(0.2)]
            if not critic:
                if dropout:
                    layers.append(_MapDropout(dropout, generator))
                if k:
                    layers.append(_batch_norm(after, bn_eps, generator))
            before, side = after, (side + 1) // 2
        layers.append(nn.Flatten())
        layers.append(_layer(nn.Linear, before * side**2, 1, generator=generator))
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        """
        Score images.

        Parameters
        ----------
        x : Tensor of shape (n, channels, img_size, img_size)
            Images.

        Returns
        -------
        Tensor of shape (n,)
            Logits.
        """
        return self.layers(x)[:, 0]


def _batch_norm(width, eps, generator):
    layer = nn.BatchNorm2d(width, eps)
    _fill(layer.weight, generator, std=0.02, mean=1.0)
    return layer


# Dropout of whole maps. torch's own reads the global random state; here the k-th
# mask is a function of a seed and k, and both travel with the state of the module.
class _MapDropout(nn.Module):
    def __init__(self, p, generator):
        super().__init__()
        self.p = p
        self.seed = int(torch.randint(2**62, (), generator=generator))
        self.drawn = 0

    def forward(self, x):
        if not self.training:
            return x
        rng = np.random.default_rng((self.seed, self.drawn))
        self.drawn += 1
        keep = torch.from_numpy(rng.random((*x.shape[:2], 1, 1)) >= self.p)
        return x * (keep.to(x) / (1 - self.p))

    def get_extra_state(self):
        return {"seed": self.seed, "drawn": self.drawn}

    def set_extra_state(self, state):
        self.seed, self.drawn = state["seed"], state["drawn"]


def ring_networks(*, generator=None):
    """
    Make the two small networks for points of the plane.

    Both have two hidden layers of 64 rectifiers; the noise has 8 dimensions.

    Parameters
    ----------
    generator : torch.Generator, int or None, default=None
        Source of the initial weights, the generator's first.

    Returns
    -------
    G : MLPGenerator
        From 8 dimensions to the plane.
    D : MLPDiscriminator
        From the plane to a logit.

    Raises
    ------
    TypeError
        If the generator is of a wrong type.

    See Also
    --------
    digits_networks : For images of 8 x 8 pixels.

    Examples
    --------
    >>> from lib.games import ring_networks
    >>> G, D = ring_networks(generator=0)
    >>> sum(w.numel() for w in G.parameters())
    4866
    """
    generator = _as_generator(generator)
    options = {"hidden": (64, 64), "slope": 0.0, "generator": generator}
    G = MLPGenerator(8, (2,), batch_norm=False, tanh=False, **options)
    return G, MLPDiscriminator((2,), **options)


def digits_networks(*, generator=None):
    """
    Make the two small networks for images of 8 x 8 pixels.

    Both have two hidden layers of 128 leaky rectifiers, the second of the generator
    with batch normalisation; the noise has 32 dimensions.

    Parameters
    ----------
    generator : torch.Generator, int or None, default=None
        Source of the initial weights, the generator's first.

    Returns
    -------
    G : MLPGenerator
        From 32 dimensions to images in [-1, 1].
    D : MLPDiscriminator
        From images to a logit.

    Raises
    ------
    TypeError
        If the generator is of a wrong type.

    See Also
    --------
    ring_networks : For points of the plane.

    Examples
    --------
    >>> from lib.games import digits_networks
    >>> G, D = digits_networks(generator=0)
    >>> G.out_shape
    (1, 8, 8)
    """
    generator = _as_generator(generator)
    options = {"hidden": (128, 128), "generator": generator}
    G = MLPGenerator(32, (1, 8, 8), **options)
    return G, MLPDiscriminator((1, 8, 8), **options)
