"""Large products by oneDNN: right to the rounding of their sums, for every layout, and small ones as they were."""

import pytest
import torch
from torch._inductor.utils import run_and_get_code

from functrain.compiler.patches.onednn_products import PATCH, on_amd
from functrain.compiler.patches.patch import applied

pytestmark = pytest.mark.skipif(not on_amd(), reason="MKL computes products well on this processor")

NUMBERS = torch.Generator().manual_seed(0)


def matrix(rows, columns, transposed):
    values = torch.randn(columns, rows, generator=NUMBERS).t() if transposed else None
    return torch.randn(rows, columns, generator=NUMBERS) if values is None else values


def compiled(function, *arguments):
    """The result, and the code that inductor made."""
    torch.compiler.reset()
    with applied([PATCH]) as patched, torch.no_grad():
        assert patched.names == ("onednn_products",)
        found, code = run_and_get_code(torch.compile(function, fullgraph=True), *arguments)
    return found, "".join(code)


@pytest.mark.parametrize("left_transposed", [False, True])
@pytest.mark.parametrize("right_transposed", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_is_right_to_the_rounding_of_its_sums(left_transposed, right_transposed, biased):
    left, right = matrix(67, 512, left_transposed), matrix(512, 301, right_transposed)
    bias = torch.randn(301, generator=NUMBERS) if biased else None
    if bias is None:
        found, code = compiled(torch.mm, left, right)
    else:
        found, code = compiled(torch.addmm, bias, left, right)
    assert "_linear_pointwise" in code
    exact = left.double() @ right.double() + (0 if bias is None else bias.double())
    sizes = left.double().abs() @ right.double().abs() + (0 if bias is None else bias.double().abs())
    assert ((found - exact).abs() <= 513 * 2**-24 * sizes).all()


def test_a_view_of_a_computed_matrix_is_multiplied():
    def function(x, w):
        hidden = torch.tanh(x)
        return torch.relu(hidden[:, 5:517] @ w[::2].t()) + 1

    x, w = torch.randn(64, 600, generator=NUMBERS), torch.randn(512, 512, generator=NUMBERS)
    found, code = compiled(function, x, w)
    assert "_linear_pointwise" in code
    exact = function(x.double(), w.double())
    sizes = x[:, 5:517].double().abs() @ w[::2].double().abs().t()
    assert ((found - exact).abs() <= (513 + 4) * 2**-24 * (sizes + 1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_products_and_other_dtypes_stay_as_they_were(dtype):
    size = 32 if dtype == torch.float32 else 300
    _, code = compiled(torch.mm, torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype))
    assert "_linear_pointwise" not in code


def test_lowerings_are_put_back():
    from torch._inductor.lowering import lowerings

    before = lowerings[torch.ops.aten.mm.default]
    with applied([PATCH]):
        assert lowerings[torch.ops.aten.mm.default] is not before
    assert lowerings[torch.ops.aten.mm.default] is before
