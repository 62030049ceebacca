"""PyTorch's own sample inputs for these operators, value and gradient, in three precisions."""

from __future__ import annotations

import pytest
import torch

import kullback.torch as kt

pytest.importorskip("expecttest", reason="PyTorch's testing tools need expecttest")
methods = pytest.importorskip("torch.testing._internal.common_methods_invocations")

OURS = {
    "nn.functional.cross_entropy": kt.cross_entropy,
    "nn.functional.nll_loss": kt.nll_loss,
    "nn.functional.binary_cross_entropy_with_logits": kt.binary_cross_entropy_with_logits,
    "nn.functional.kl_div": kt.kl_div,
    "nn.functional.linear_cross_entropy": kt.linear_cross_entropy,
}
# "chunked": the linear layer with PyTorch's own options
OPERATORS = [op for op in methods.op_db if op.name in OURS and op.variant_test_name in ("", "chunked")]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: f"{op.name} {op.variant_test_name}")
def test_samples(op, dtype):
    ours = OURS[op.name]
    n_samples = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
        arguments = (sample.input, *sample.args)
        n_samples += 1
        value, gradients = differentiated(ours, arguments, sample.kwargs)
        expected, wanted = differentiated(op, arguments, sample.kwargs)
        if dtype != torch.bfloat16:
            torch.testing.assert_close(value, expected, equal_nan=True)
            torch.testing.assert_close(gradients, wanted, equal_nan=True)
            continue
        whole = {
            name: value for name, value in sample.kwargs.items() if name != "options"
        }  # float64 takes none of them
        exact, exact_gradients = differentiated(op, widened(arguments), widened(whole))
        for mine, theirs, truth in zip(
            (value, *gradients), (expected, *wanted), (exact, *exact_gradients), strict=True
        ):
            assert mine.dtype == theirs.dtype
            known = truth.isfinite()
            largest = truth[known].abs().max() if known.any() else 0.0
            # one rounding; inside it is float32, whose logits in the hundreds know p to four digits
            bound = (theirs - truth).abs() + 2**-8 * truth.abs() + 1e-7 + 2**-15 * largest
            assert ((mine - truth).abs() <= bound)[known].all()
    assert n_samples > 3


def differentiated(function, arguments, keywords):
    value = function(*arguments, **keywords)
    inputs = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    incoming = torch.linspace(1, 2, value.numel()).bfloat16().reshape(value.shape).to(value.dtype)
    return value, torch.autograd.grad(value, inputs, incoming)


def widened(values):
    def wide(x):
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            return x.detach().double().requires_grad_(x.requires_grad)
        return x

    return {k: wide(v) for k, v in values.items()} if isinstance(values, dict) else tuple(map(wide, values))
