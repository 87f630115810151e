import pytest
import torch
from torch.nn import functional as F

from engrec.models import lrn
from engrec.models.lrn import LocalResponseNorm

LAYOUTS = [torch.contiguous_format, torch.channels_last]
NUMBERS = [(11, 11e-4, 0.75, 1.0), (4, 0.5, 0.75, 2.0), (5, 0.3, 0.5, 1.0), (1, 1.0, 0.75, 1.0)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("layout", LAYOUTS)
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
        (grad,) = torch.autograd.grad(out.float().sum(), ours)
    expected = LocalResponseNorm()(theirs)
    (expected_grad,) = torch.autograd.grad(expected.sum(), theirs)
    assert out.dtype == grad.dtype == torch.bfloat16
    assert torch.equal(out, expected.bfloat16())
    assert torch.equal(grad, expected_grad.bfloat16())


def test_input_is_left_as_it_was():
    x = torch.randn(1, 8, 3, 3)
    before = x.clone()
    LocalResponseNorm()(x)
    assert torch.equal(x, before)


def normalized(x, upstream, numbers):
    x = x.detach().clone().requires_grad_()
    out = LocalResponseNorm(*numbers)(x)
    return out.detach(), *torch.autograd.grad(out, x, upstream)


@pytest.fixture
def parts(monkeypatch):
    """How many images each product with the window was of."""
    sizes, product = [], lrn._product
    monkeypatch.setattr(lrn, "_product", lambda x, *args: (sizes.append(len(x)), product(x, *args))[1])
    return sizes


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_that_are_normalised_in_parts_come_out_as_each_alone(parts, layout, numbers, dtype):
    """Five images of which three are a part, and two the rest."""
    x = (3 * torch.randn(5, 64, 48, 48, dtype=dtype)).contiguous(memory_format=layout)
    upstream = torch.randn_like(x)
    out, grad = normalized(x, upstream, numbers)
    assert parts == [3, 2, 3, 2]
    for i in range(5):
        alone, its_grad = normalized(x[i : i + 1], upstream[i : i + 1], numbers)
        assert torch.equal(out[i : i + 1], alone)
        assert torch.equal(grad[i : i + 1], its_grad)
    assert parts[4:] == [1] * 10


def test_in_parts_it_is_what_torch_computes(parts):
    x, upstream = 3 * torch.randn(5, 64, 48, 48), torch.randn(5, 64, 48, 48)
    theirs = x.clone().requires_grad_()
    expected = F.local_response_norm(theirs, *NUMBERS[1])
    expected.backward(upstream)
    out, grad = normalized(x, upstream, NUMBERS[1])
    assert len(parts) == 4
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad, theirs.grad, rtol=1e-6, atol=2e-6)


def test_an_image_larger_than_a_part_is_one(parts):
    x = torch.randn(3, 300, 50, 50)
    out, grad = normalized(x, torch.ones(()).expand(x.shape), NUMBERS[0])  # the gradient of a sum has no memory
    assert parts == [1] * 6
    torch.testing.assert_close(out, F.local_response_norm(x, *NUMBERS[0]))
    assert grad.isfinite().all()


def test_whole_as_where_it_is_compiled_it_is_the_same(parts, monkeypatch):
    x = torch.randn(5, 64, 48, 48)
    upstream = torch.randn_like(x)
    expected = normalized(x, upstream, NUMBERS[0])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = normalized(x, upstream, NUMBERS[0])
    assert parts == [3, 2, 3, 2, 5, 5]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_another_device_computes_it_it_is_what_torch_computes(parts, monkeypatch, layout, numbers):
    x = (3 * torch.randn(5, 64, 48, 48)).contiguous(memory_format=layout)
    upstream, theirs = torch.randn_like(x), x.clone().requires_grad_()
    expected = F.local_response_norm(theirs, *numbers)
    expected.backward(upstream)
    monkeypatch.setattr(lrn, "_on_cpu", lambda x: False)
    out, grad = normalized(x, upstream, numbers)
    assert parts == [5, 5]
    assert out.stride() == grad.stride() == x.stride()
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad, theirs.grad, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 64, 48, 48), (2, 8, 6, 7)])
def test_the_layout_is_kept(layout, shape, dtype):
    """Of the upstream gradient's there are two kinds, and the input's counts."""
    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=layout)
    for other in LAYOUTS:
        out, grad = normalized(x, torch.ones_like(x).contiguous(memory_format=other), NUMBERS[0])
        assert out.stride() == grad.stride() == x.stride()


@pytest.mark.parametrize("numbers", NUMBERS)
def test_written_as_onnx_it_is_what_torch_computes(monkeypatch, numbers):
    x = 3 * torch.randn(5, 64, 6, 7)
    layer = LocalResponseNorm(*numbers)
    expected = layer(x)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(layer(x), F.local_response_norm(x, *numbers), rtol=1e-6, atol=1e-6)
