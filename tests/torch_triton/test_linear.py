"""Fused linear layer and loss against the product and the reference, one after the other."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from kullback.errors import InputError  # noqa: E402
from kullback.kernels.recipe import SoftmaxRecipe  # noqa: E402
from kullback.targets import ClassIndices  # noqa: E402
from kullback.torch.rows import TargetRows  # noqa: E402
from kullback.torch.triton import (  # noqa: E402
    RowLoss,
    Status,
    chunks,
    linear_softmax_evaluate,
    reference,
)

from .cases import FORMS, PARAMETERS, exact, targets, vectors  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's own NumPy arithmetic

EVALUATE = pytest.mark.parametrize(
    "evaluate", [linear_softmax_evaluate, reference.linear_softmax_evaluate], ids=["kernel", "plain"]
)
N, D, C = 7, 6, 19
WANTED = {"input_gradient": True, "weight_gradient": True, "bias_gradient": True}


def layer(rng, device, dtype=torch.float32):
    shapes = {"input": (N, D), "weight": (C, D), "bias": (C,)}
    return {n: torch.tensor(rng.normal(size=s), dtype=torch.float32).to(device, dtype) for n, s in shapes.items()}


def double(tensor):
    return tensor.double().cpu().numpy()


def expected(layer, recipe, wrapped, **options):
    """Losses and gradients of input, weight and bias in float64."""
    x, w, b = (double(layer[n]) for n in ("input", "weight", "bias"))
    losses, g = exact(recipe, torch.tensor(x @ w.T + b), wrapped, **options)
    return losses, g @ w, g.T @ x, g.sum(axis=0)


def assert_all_close(result, want, tolerance):
    got = (result.losses, result.input_gradient, result.weight_gradient, result.bias_gradient)
    for ours, exact_value in zip(got, want, strict=True):
        size = np.abs(exact_value).max()
        np.testing.assert_allclose(double(ours), exact_value, rtol=tolerance, atol=tolerance * size)


@EVALUATE
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["cross_entropy", "focal", "brier", "one_vs_rest"])
def test_every_chunking_gives_the_same(rng, device, evaluate, form, family):
    parts = layer(rng, device)
    target, wrapped = targets(rng, form, N, C, device)
    recipe = SoftmaxRecipe(
        family, PARAMETERS[family], smoothing=0.1, softcap=8.0, z_loss=1e-3, **vectors(rng, C, "class_weight")
    )
    want = expected(parts, recipe, wrapped, scale=1 / N)
    loss = RowLoss.from_recipe(recipe, device)
    for chunk_rows in (3, None):
        result = evaluate(
            loss,
            parts["input"],
            parts["weight"],
            target,
            bias=parts["bias"],
            scale=1 / N,
            chunk_rows=chunk_rows,
            **WANTED,
        )
        assert_all_close(result, want, 5e-6)


@EVALUATE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [True, False])
def test_half_precision(rng, device, evaluate, dtype, wide):
    parts = layer(rng, device, dtype)
    target, wrapped = targets(rng, "index", N, C, device)
    want = expected(parts, SoftmaxRecipe(), wrapped, scale=1 / N)
    result = evaluate(
        RowLoss(), parts["input"], parts["weight"], target, bias=parts["bias"], scale=1 / N, chunk_rows=4,
        accumulate_in_float32=wide, **WANTED,
    )  # fmt: skip
    assert result.weight_gradient.dtype == result.input_gradient.dtype == result.bias_gradient.dtype == dtype
    # logits and gradients are held in half precision; narrow sums round once more a chunk
    assert_all_close(result, want, torch.finfo(dtype).eps * (3 if wide else 6))


def test_a_weight_gradient_of_many_chunks_keeps_its_digits_in_float32(device):
    """A bfloat16 sum at 256 stands still when halves are added to it."""
    n = 41
    x = torch.ones(n, 1, dtype=torch.bfloat16, device=device)
    x[0] = 512
    w = torch.zeros(2, 1, dtype=torch.bfloat16, device=device)
    target = TargetRows(torch.zeros(n, dtype=torch.int64, device=device))
    options = {"weight_gradient": True, "chunk_rows": 1}
    wide = reference.linear_softmax_evaluate(RowLoss(), x, w, target, **options)
    narrow = reference.linear_softmax_evaluate(RowLoss(), x, w, target, accumulate_in_float32=False, **options)
    assert wide.weight_gradient.tolist() == [[-276.0], [276.0]]
    assert narrow.weight_gradient.tolist() == [[-256.0], [256.0]]


def test_float16_gradients_do_not_vanish_in_the_scale(rng, device):
    """scale = 1/N of a large batch would take every entry of a float16 gradient below what it can hold."""
    parts = layer(rng, device, torch.float16)
    target, wrapped = targets(rng, "index", N, C, device)
    want = expected(parts, SoftmaxRecipe(), wrapped, scale=1e-6)
    result = linear_softmax_evaluate(
        RowLoss(), parts["input"], parts["weight"], target, bias=parts["bias"], scale=1e-6, weight_gradient=True
    )
    np.testing.assert_allclose(double(result.weight_gradient), want[2], rtol=0.02, atol=6e-8)
    assert result.weight_gradient.count_nonzero() > 0.5 * C * D


@EVALUATE
@pytest.mark.parametrize("drop", [False, True])
def test_ignored_rows_may_hold_anything(rng, device, evaluate, drop):
    parts = layer(rng, device)
    y = rng.integers(0, C, N)
    y[[1, 4]] = -100
    weight = np.ones(N)
    weight[2] = 0
    want = expected(parts, SoftmaxRecipe(), ClassIndices(y), row_weight=weight, ignore_index=-100)
    parts["input"][[1, 2, 4]] = float("nan")
    result = evaluate(
        RowLoss(),
        parts["input"],
        parts["weight"],
        TargetRows(torch.tensor(y, device=device)),
        bias=parts["bias"],
        row_weight=torch.tensor(weight, dtype=torch.float32, device=device),
        ignore_index=-100,
        drop_ignored=drop,
        log_sum_exp=True,
        argmax=True,
        chunk_rows=4,
        **WANTED,
    )
    assert_all_close(result, want, 5e-6)
    assert not result.input_gradient[[1, 2, 4]].any()
    assert (result.status == Status.NOT_COUNTED).nonzero()[:, 0].tolist() == [1, 2, 4]
    assert result.argmax[[1, 2, 4]].tolist() == [-1, -1, -1]


@EVALUATE
def test_dropping_what_is_ignored_keeps_narrow_indices_apart(rng, device, evaluate):
    """Class 156 of uint8 is not the ignored −100."""
    x, w = (torch.tensor(rng.normal(size=(n, 2)), dtype=torch.float32, device=device) for n in (2, 200))
    narrow, wide = (TargetRows(torch.tensor([156, 3], dtype=t, device=device)) for t in (torch.uint8, torch.int64))
    found, want = (
        evaluate(RowLoss(), x, w, target, ignore_index=-100, drop_ignored=True, input_gradient=True)
        for target in (narrow, wide)
    )
    torch.testing.assert_close(found.losses, want.losses)
    torch.testing.assert_close(found.input_gradient, want.input_gradient)
    assert found.losses.all()


@EVALUATE
def test_no_rows_and_all_ignored(device, evaluate):
    x, w, b = torch.ones(3, 2, device=device), torch.ones(4, 2, device=device), torch.ones(4, device=device)
    for n, drop in ((0, False), (3, False), (3, True)):
        target = TargetRows(torch.full((n,), -100, device=device))
        result = evaluate(RowLoss(), x[:n], w, target, bias=b, ignore_index=-100, drop_ignored=drop, **WANTED)
        assert result.losses.tolist() == [0.0] * n
        assert not result.weight_gradient.any()
        assert not result.bias_gradient.any()
        assert not result.input_gradient.any()


@EVALUATE
def test_only_what_is_asked_for(rng, device, evaluate):
    parts = layer(rng, device)
    target, wrapped = targets(rng, "index", N, C, device)
    want = expected(parts, SoftmaxRecipe(), wrapped)
    before = {n: t.clone() for n, t in parts.items()}
    result = evaluate(RowLoss(), parts["input"], parts["weight"], target, bias=parts["bias"])
    assert result[2:] == (None,) * 5
    np.testing.assert_allclose(double(result.losses), want[0], rtol=1e-5)
    for i, name in enumerate(WANTED):
        result = evaluate(RowLoss(), parts["input"], parts["weight"], target, bias=parts["bias"], **{name: True})
        gradients = (result.input_gradient, result.weight_gradient, result.bias_gradient)
        assert [g is not None for g in gradients] == [j == i for j in range(3)]
        np.testing.assert_allclose(double(gradients[i]), want[i + 1], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[n], t) for n, t in parts.items())


def test_logits_are_never_held_whole(rng, device, monkeypatch):
    seen = []

    def rows(loss, logits, *args, **options):
        seen.append(logits.shape)
        return reference.softmax_evaluate(loss, logits, *args, **options)

    parts = layer(rng, device)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 3 * C * 4)
    target, _ = targets(rng, "index", N, C, device)
    chunks.evaluate(rows, RowLoss(), parts["input"], parts["weight"], target, weight_gradient=True)
    assert seen == [(3, C), (3, C), (1, C)]


class Sizes(TorchDispatchMode):
    """The sizes of the float32 tensors that come into being."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), keywords=None):
        result = function(*args, **(keywords or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
            self.seen.append(result.numel())
        return result


def test_a_large_bfloat16_weight_gets_its_gradient_without_a_float32_sum_beside_it(rng, device, monkeypatch):
    n, d, c = 640, 40, 96
    x = torch.tensor(rng.normal(size=(n, d)), device=device).bfloat16()
    w = torch.tensor(rng.normal(size=(c, d)), device=device).bfloat16()
    target = TargetRows(torch.tensor(rng.integers(0, c, n), device=device))
    chunk = 128 * c * 2
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk)  # five chunks of logits; 4·C·D is less
    wide = chunks.evaluate(reference.softmax_evaluate, RowLoss(), x, w, target, weight_gradient=True).weight_gradient
    seen = []

    def rows(loss, logits, *args, **options):
        seen.append(len(logits))
        return reference.softmax_evaluate(loss, logits, *args, **options)

    assert chunks.sums_in_float32(w)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 4 * c * d - 1)  # the sum does not fit, a chunk of 79 rows would
    assert not chunks.sums_in_float32(w)
    assert chunks.sums_in_float32(w.half())
    assert chunks.sums_in_float32(w.float())
    with Sizes() as sizes:
        narrow = chunks.evaluate(rows, RowLoss(), x, w, target, weight_gradient=True).weight_gradient
    assert seen == [256, 256, 128]
    assert c * d not in sizes.seen
    with Sizes() as sizes:
        chunks.evaluate(rows, RowLoss(), x, w, target, weight_gradient=True, accumulate_in_float32=True)
    assert c * d in sizes.seen
    # rounded once a chunk, where the sums are at most those of the absolute values
    g = (x.double() @ w.double().t()).softmax(1)
    g[torch.arange(n), target.first] -= 1
    exact, most = g.t() @ x.double(), g.abs().t() @ x.double().abs()
    rounding = torch.finfo(torch.bfloat16).eps / 2
    assert ((narrow.double() - exact).abs() <= rounding * (3 * exact.abs() + 3 * most)).all()
    assert (narrow.double() - exact).norm() <= 2 * (wide.double() - exact).norm()


@EVALUATE
def test_what_does_not_fit_together_is_refused(device, evaluate):
    x, w = torch.ones(3, 2, device=device), torch.ones(4, 2, device=device)
    target = TargetRows(torch.zeros(3, dtype=torch.int64, device=device))
    for arguments, options, message in (
        ((x, w.t()), {}, r"expected \(N, D\) and \(C, D\)"),
        ((x, w.half()), {}, "weight is torch.float16"),
        ((x, w), {"bias": torch.ones(3, device=device)}, r"bias has shape \(3,\), expected \(4,\)"),
        ((x, w), {"chunk_rows": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(RowLoss(), *arguments, target, **options)
