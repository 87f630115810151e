"""Local response normalisation, which the paper's published code uses after its first convolutions."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalResponseNorm(nn.Module):
    """x * (k + alpha / size * sum of x² over `size` neighbouring channels) ** -beta, for maps (B, C, H, W).

    Formula and argument names are those of torch.nn.LocalResponseNorm. The defaults are tflearn's: it sums over
    2 * 5 + 1 channels and does not divide alpha = 1e-4 by the size of the window. Low-precision input is normalised in
    float32 and returned in its own dtype.
    """

    def __init__(self, size: int = 11, alpha: float = 11e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, images: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return self.plain(images)
        return _Normalize.apply(images, self.size, self.alpha, self.beta, self.k)

    def plain(self, images: Tensor) -> Tensor:
        """The same in operations that ONNX has. An exporter cannot see that _Normalize writes into parts of its result,
        and would fix the number of images to that of its example."""
        window = _window(images, images.dtype, self.size, self.alpha)
        sums = (window @ images.square().flatten(2)).view_as(images)
        return images * (sums + self.k) ** -self.beta

    def extra_repr(self) -> str:
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class _Normalize(torch.autograd.Function):
    """The function with its own backward, which passes over memory half as often as autograd's would.

    On a CPU it takes a few images at a time, so that intermediate results stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        window = _window(x, wide, size, alpha)
        normalized, denominators = torch.empty_like(x), []
        for images, out in _parts(x, normalized):
            images = images.to(wide)
            denominators.append(_product(images.square(), window, k))
            out.copy_(_power(denominators[-1], -beta).mul_(images))
        ctx.save_for_backward(x, window, *denominators)
        ctx.beta = beta
        return normalized

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, window, *denominators = ctx.saved_tensors
        grad = torch.empty_like(x)
        for below, (images, given, out) in zip(denominators, _parts(x, grad_outputs[0], grad), strict=True):
            images = images.to(below.dtype)  # first, as a product of two types is not vectorised
            direct = _power(below, -ctx.beta).mul_(given.to(below.dtype))
            through_window = _product((direct * images).div_(below), window.T)
            out.copy_(direct.addcmul_(through_window, images, value=-2 * ctx.beta))
        return grad, None, None, None, None


def _window(x: Tensor, dtype: torch.dtype, size: int, alpha: float) -> Tensor:
    """The banded matrix (C, C) whose product with squares is alpha / size times their sum over neighbouring channels:
    torch's average pooling over channels is much slower on a CPU."""
    ones = torch.ones(x.shape[1], x.shape[1], dtype=dtype, device=x.device)
    return ones.tril((size - 1) // 2).triu(-(size // 2)).mul_(alpha / size)


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    images = tensors[0]
    whole = not _on_cpu(images) or torch.compiler.is_compiling()
    size = len(images) if whole else max(1, 2**19 * len(images) // max(1, images.numel()))
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def _product(x: Tensor, matrix: Tensor, added: float = 0.0) -> Tensor:
    """The matrix (C, C) times the channels at each pixel, plus a number, in full precision."""
    bias = matrix.new_full((len(matrix),), added) if added else None
    with torch.autocast(x.device.type, enabled=False):
        if _on_cpu(x):
            return F.conv2d(x, matrix[:, :, None, None], bias)
        return F.linear(x.movedim(1, 3), matrix, bias).movedim(3, 1)  # a convolution would be rounded to TensorFloat-32


def _power(x: Tensor, exponent: float) -> Tensor:
    if exponent != -0.75 or not _on_cpu(x):
        return x.pow(exponent)
    root = x.rsqrt()  # on a CPU two square roots are much faster than a general power
    return root.sqrt().mul_(root)


def _on_cpu(x: Tensor) -> bool:
    """On other devices the time goes into passes over memory."""
    return x.device.type == "cpu"
