import pytest
import torch
from torch.nn import functional as F

from engrec.models.lrn import LocalResponseNorm

NUMBERS = [(11, 11e-4, 0.75, 1.0), (4, 0.5, 0.75, 2.0), (5, 0.3, 0.5, 1.0), (1, 1.0, 0.75, 1.0)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradient_are_those_of_torch(dtype, tolerance, numbers, layout):
    x = (3 * torch.randn(2, 16, 5, 6, dtype=dtype)).contiguous(memory_format=layout)
    upstream = torch.randn_like(x)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = LocalResponseNorm(*numbers)(ours), F.local_response_norm(theirs, *numbers)
    out.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=tolerance, atol=tolerance)


def test_gradient_is_the_derivative():
    x = torch.randn(1, 12, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LocalResponseNorm(alpha=0.5), x)


def test_bfloat16_is_computed_in_float32_even_under_autocast():
    x = (30 * torch.randn(2, 64, 4, 4)).bfloat16()
    ours, theirs = x.clone().requires_grad_(), x.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = LocalResponseNorm()(ours)
        out.float().sum().backward()
    expected = LocalResponseNorm()(theirs)
    expected.sum().backward()
    assert out.dtype == ours.grad.dtype == torch.bfloat16
    assert torch.equal(out, expected.bfloat16())
    assert torch.equal(ours.grad, theirs.grad.bfloat16())


def test_input_is_left_as_it_was():
    x = torch.randn(1, 8, 3, 3)
    before = x.clone()
    LocalResponseNorm()(x)
    assert torch.equal(x, before)
