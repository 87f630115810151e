"""Local response normalisation, the paper's normalisation of early feature maps."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalResponseNorm(nn.Module):
    """x * (k + alpha / size * sum of x² over `size` neighbouring channels) ** -beta, for maps (B, C, H, W).

    The formula and the argument names are those of torch.nn.LocalResponseNorm; the defaults are tflearn's, which sums
    over 2 * 5 + 1 channels and does not divide alpha = 1e-4 by the window. Low-precision input is normalised in float32
    and returned in its own dtype.
    """

    def __init__(self, size: int = 11, alpha: float = 11e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, images: Tensor) -> Tensor:
        return _Normalize.apply(images, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class _Normalize(torch.autograd.Function):
    """With a backward of its own, which needs half the passes over memory that autograd would make."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        # A product with a banded matrix: torch's average pooling over channels is much slower on a CPU.
        window = torch.ones(x.shape[1], x.shape[1], dtype=wide.dtype, device=x.device)
        window = window.tril((size - 1) // 2).triu(-(size // 2)).mul_(alpha / size)[:, :, None, None]
        denominator = _conv(wide.square(), window).add_(k)
        factor = _power(denominator, -beta)
        ctx.save_for_backward(x, denominator, factor, window)
        ctx.beta = beta
        return (wide * factor).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, denominator, factor, window = ctx.saved_tensors
        direct = grad_outputs[0] * factor
        through_window = _conv((direct * x).div_(denominator), window.transpose(0, 1))
        grad = direct.addcmul_(through_window, x.to(direct.dtype), value=-2 * ctx.beta).to(x.dtype)
        return grad, None, None, None, None


def _conv(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, weight)


def _power(x: Tensor, exponent: float) -> Tensor:
    if exponent != -0.75:
        return x.pow(exponent)
    root = x.rsqrt()  # two square roots cost a fraction of a general power
    return root.sqrt().mul_(root)
