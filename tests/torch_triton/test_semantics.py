"""Edge cases of the row kernels: masks, NaNs, ignored rows, bad targets, memory layouts, very large tensors."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from kullback.errors import InputError, TargetError  # noqa: E402
from kullback.kernels.recipe import SoftmaxRecipe  # noqa: E402
from kullback.targets import ClassIndices, ClassRows  # noqa: E402
from kullback.torch.rows import TargetRows  # noqa: E402
from kullback.torch.triton import (  # noqa: E402
    RowLoss,
    Status,
    check_targets,
    reference,
    scale_in_place,
    softmax_evaluate,
    supports,
)
from kullback.torch.triton.launch import Tile  # noqa: E402

from .cases import FORMS, PARAMETERS, assert_close, exact, targets  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's own NumPy arithmetic

EVALUATE = pytest.mark.parametrize("evaluate", [softmax_evaluate, reference.softmax_evaluate], ids=["kernel", "plain"])
INF, NAN = float("inf"), float("nan")


def index(values, device, dtype=torch.int64):
    return TargetRows(torch.tensor(values, dtype=dtype, device=device))


def soft(values, device):
    return TargetRows(torch.tensor(values, dtype=torch.float32, device=device))


@EVALUATE
@pytest.mark.parametrize("family", PARAMETERS)
def test_masked_classes(device, family, evaluate):
    """−inf without mass is a masked class; with mass the loss is +inf, the gradient finite; rows may be all −inf."""
    z = torch.tensor([[0.5, -INF, 1.0], [-INF, 2.0, 1.0], [-INF, -INF, -INF], [-INF, -INF, 3.0]], device=device)
    y = [0, 0, 1, 2]
    recipe = SoftmaxRecipe(family, PARAMETERS[family], shift=np.float64([0.5, 0.5, 0.5]))
    result = evaluate(RowLoss.from_recipe(recipe, device), z, index(y, device), gradient=True)
    losses, gradient = exact(recipe, z, ClassIndices(y))
    assert_close(result, losses, gradient, 2.0)
    infinite = np.isposinf(losses)
    assert ((result.status.cpu().numpy() == Status.INFINITE) == infinite).all()
    if family == "cross_entropy":
        assert infinite.tolist() == [False, True, True, False]
        assert result.gradient[0, 1] == 0


@EVALUATE
def test_smoothing_puts_mass_on_masked_classes(device, evaluate):
    z = torch.tensor([[0.5, -INF, 1.0]], device=device)
    for recipe in (SoftmaxRecipe(smoothing=0.1), SoftmaxRecipe(smoothing=0.1, class_weight=np.float64([1, 0, 2]))):
        result = evaluate(RowLoss.from_recipe(recipe, device), z, index([0], device), gradient=True)
        assert_close(result, *exact(recipe, z, ClassIndices([0])), 1.0)
    assert result.losses.isfinite().all()  # the masked class has weight 0


@EVALUATE
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_spoilt_row_says_nan_and_spoils_no_other(rng, device, form, bad, evaluate):
    z = torch.tensor(rng.normal(size=(3, 40)), dtype=torch.float32, device=device)
    z[1, 37] = bad
    target, wrapped = targets(rng, form, 3, 40, device)
    result = evaluate(RowLoss(), z, target, gradient=True)
    losses, gradient = exact(SoftmaxRecipe(), z, wrapped)
    assert_close(result, losses, gradient, 2.0)
    assert np.isnan(losses[1])
    assert result.gradient[1].isnan().all()
    assert result.status.tolist() == [Status.COUNTED, Status.BAD_LOGIT, Status.COUNTED]
    kept = evaluate(RowLoss(softcap=3.0), z, target, gradient=True)
    assert kept.losses.isnan().tolist() == [False, True, False]


@EVALUATE
@pytest.mark.parametrize("tile", [None, Tile(1, 8, 4)])
def test_rows_that_do_not_count_are_exactly_zero(device, evaluate, tile):
    z = torch.full((4, 20), NAN, device=device)
    z[2] = torch.linspace(-1, 1, 20)
    z[3] = INF
    options = {"tile": tile} if evaluate is softmax_evaluate else {}
    result = evaluate(
        RowLoss(smoothing=0.1, z_loss=0.1),
        z,
        index([-100, 3, 4, -100], device),
        row_weight=torch.tensor([1.0, 0.0, 2.0, 1.0], device=device),
        ignore_index=-100,
        gradient=True,
        log_sum_exp=True,
        argmax=True,
        **options,
    )
    assert result.losses[[0, 1, 3]].tolist() == [0, 0, 0]
    assert not result.gradient[[0, 1, 3]].any()
    assert result.gradient[2].all()
    assert result.status.tolist() == [1, 1, 0, 1]
    assert result.argmax.tolist() == [-1, -1, 19, -1]
    assert result.log_sum_exp[[0, 1, 3]].tolist() == [0, 0, 0]


@EVALUATE
def test_unusable_targets_are_marked_and_named_when_asked(device, evaluate):
    z = torch.randn(3, 5, device=device)

    def mixture(*parts):
        return TargetRows(*(torch.tensor(part, device=device) for part in parts))

    for target, message in (
        (index([0, 5, 1], device), "row 1: target 5 is not a class; valid indices are 0 to 4"),
        (index([0, 1, -1], device), "row 2: target -1 is not a class"),
        (soft(np.full((3, 5), [0.5, 0.5, -0.1, 0, 0]), device), "row 0, column 2: soft target -0.1"),
        (soft([[1, 0, 0, 0, 0], [0, 1, 0, 0, NAN], [1, 0, 0, 0, 0]], device), "row 1, column 4: soft target nan"),
        (mixture([0, 1, 2], [0, 9, 2], [0.5, 1.0, 0.5]), "row 1: target 9"),
        (mixture([0, 1, 2], [0, 1, 2], [0.5, 0.5, 1.5]), "row 2: mixture share 1.5"),
    ):
        result = evaluate(RowLoss(), z, target, gradient=True)
        bad = result.status == Status.BAD_TARGET
        assert bad.any()
        assert torch.equal(result.losses.isnan(), bad)
        assert torch.equal(result.gradient.isnan().all(dim=1), bad)
        assert torch.equal(result.gradient.isnan().any(dim=1), bad)
        with pytest.raises(TargetError, match=message):
            check_targets(result, target, 5)
    check_targets(evaluate(RowLoss(), z, index([0, 1, 2], device)), index([0, 1, 2], device), 5)


@EVALUATE
def test_a_bad_target_in_a_row_that_does_not_count_is_no_error(device, evaluate):
    result = evaluate(
        RowLoss(), torch.randn(2, 5, device=device), index([-100, 99], device), ignore_index=-100,
        row_weight=torch.tensor([1.0, 0.0], device=device), gradient=True,
    )  # fmt: skip
    assert result.status.tolist() == [Status.NOT_COUNTED] * 2
    assert not result.gradient.any()


@EVALUATE
@pytest.mark.parametrize("tile", [None, Tile(1, 8, 4)])
@pytest.mark.parametrize("family", ["cross_entropy", "focal", "brier", "one_vs_rest"])
def test_the_gradient_may_overwrite_the_logits(rng, device, evaluate, tile, family):
    z = torch.tensor(rng.normal(size=(5, 30)), dtype=torch.float32, device=device)
    target, wrapped = targets(rng, "index", 5, 30, device)
    recipe = SoftmaxRecipe(family, PARAMETERS[family])
    losses, gradient = exact(recipe, z, wrapped)
    options = {"tile": tile} if evaluate is softmax_evaluate else {}
    result = evaluate(RowLoss.from_recipe(recipe, device), z, target, gradient=z, **options)
    assert result.gradient is z
    assert_close(result, losses, gradient, 2.0)


@EVALUATE
def test_memory_layouts_and_index_types(rng, device, evaluate):
    z = torch.tensor(rng.normal(size=(6, 7)), dtype=torch.float32, device=device)
    target, wrapped = targets(rng, "index", 6, 7, device)
    losses, gradient = exact(SoftmaxRecipe(), z, wrapped)
    out = torch.full((6, 20), 7.0, device=device)
    result = evaluate(RowLoss(), z.t().contiguous().t(), target, gradient=out[:, 3:10])
    assert_close(result, losses, gradient, 2.0)
    assert out[:, :3].eq(7).all()  # nothing beside the gradient is written
    assert out[:, 10:].eq(7).all()
    wide = torch.stack([target.first, target.first], 1)[:, 0]
    for first in (wide, *(target.first.to(t) for t in (torch.int32, torch.int16, torch.int8, torch.uint8))):
        assert_close(evaluate(RowLoss(), z, TargetRows(first), gradient=True), losses, gradient, 2.0)


@EVALUATE
def test_narrow_indices_are_compared_as_the_numbers_they_are(rng, device, evaluate):
    """In uint8 the ignored −100 would be class 156, and 300 classes would be 44."""
    z = torch.tensor(rng.normal(size=(3, 300)), dtype=torch.float32, device=device)
    losses, gradient = exact(SoftmaxRecipe(), z, ClassIndices([156, 50, 255]))
    target = index([156, 50, 255], device, torch.uint8)
    result = evaluate(RowLoss(), z, target, ignore_index=-100, gradient=True)
    assert_close(result, losses, gradient, 2.0)
    assert result.status.tolist() == [Status.COUNTED] * 3


@EVALUATE
def test_scale_may_stay_on_the_device(rng, device, evaluate):
    z = torch.tensor(rng.normal(size=(3, 7)), dtype=torch.float32, device=device)
    target, wrapped = targets(rng, "index", 3, 7, device)
    losses, gradient = exact(SoftmaxRecipe(), z, wrapped, scale=0.125)
    result = evaluate(RowLoss(), z, target, gradient=True, scale=torch.tensor(0.125, device=device))
    assert_close(result, losses, gradient, 2.0)


@EVALUATE
def test_zero_rows_and_mass(device, evaluate):
    """No rows is no error; a soft row of zeros costs nothing and pulls nowhere; C = 1 is always certain."""
    empty = evaluate(RowLoss(), torch.zeros(0, 4, device=device), index([], device), gradient=True, argmax=True)
    assert empty.gradient.shape == (0, 4)
    z = torch.tensor([[1.0, -INF, 3.0], [1.0, 2.0, 3.0]], device=device)
    nothing = evaluate(RowLoss(smoothing=0.1, z_loss=1.0), z, soft(np.zeros((2, 3)), device), gradient=True)
    assert nothing.losses.tolist() == [0, 0]
    assert not nothing.gradient.any()
    one = evaluate(RowLoss(), torch.tensor([[5.0]], device=device), index([0], device), gradient=True)
    assert one.losses.tolist() == [0]
    assert one.gradient.tolist() == [[0]]


@EVALUATE
def test_large_logits(device, evaluate):
    z = torch.tensor([[1e4, -1e4, 0.0], [3e38, 3e38, -3e38], [-80.0, 80.0, 0.0]], device=device)
    y = [0, 1, 0]
    for family in ("cross_entropy", "focal", "brier"):
        recipe = SoftmaxRecipe(family, PARAMETERS[family], smoothing=0.0)
        result = evaluate(RowLoss.from_recipe(recipe, device), z, index(y, device), gradient=True)
        assert_close(result, *exact(recipe, z, ClassIndices(y)), 1.0)


@EVALUATE
def test_a_lead_that_underflows_float32(device, evaluate):
    """exp(−120) is 0 in float32; what a lone leader 120 nats ahead owes to the others is not."""
    z = torch.tensor([[0.0, 120.0, 1.0], [-1.0, 0.0, 200.0], [150.0, 0.0, 0.5]], device=device)
    y = [0, 0, 0]
    for family in ("one_vs_rest", "cross_entropy", "ldam"):
        recipe = SoftmaxRecipe(family, smoothing=0.1, shift=np.float64([0.5, 1.0, 0.2]))
        for tile in (None, Tile(1, 4, 4)):
            options = {"tile": tile} if evaluate is softmax_evaluate else {}
            result = evaluate(RowLoss.from_recipe(recipe, device), z, index(y, device), gradient=True, **options)
            losses, gradient = exact(recipe, z, ClassIndices(y))
            assert np.isfinite(losses).all()
            assert_close(result, losses, gradient, 1.0)


@EVALUATE
def test_smoothing_by_mass_or_by_class(rng, device, evaluate):
    """A soft row of mass Σt ≠ 1: our convention spreads Σt·ε, PyTorch's spreads ε."""
    z = torch.tensor(rng.normal(size=(4, 9)), dtype=torch.float32, device=device)
    target, wrapped = targets(rng, "soft", 4, 9, device)
    ours = evaluate(RowLoss(smoothing=0.3), z, target, gradient=True)
    assert_close(ours, *exact(SoftmaxRecipe(smoothing=0.3), z, wrapped), 2.0)
    leaf = z.double().requires_grad_()
    losses = torch.nn.functional.cross_entropy(leaf, target.first.double(), label_smoothing=0.3, reduction="none")
    losses.sum().backward()
    theirs = evaluate(RowLoss(smoothing=0.3, by_mass=False), z, target, gradient=True)
    assert_close(theirs, losses.detach().cpu().numpy(), leaf.grad.cpu().numpy(), 2.0)
    assert not np.allclose(ours.losses.cpu(), theirs.losses.cpu(), rtol=1e-3)


@EVALUATE
def test_mixtures_and_soft_rows_have_no_ignored_index(rng, device, evaluate):
    z = torch.tensor(rng.normal(size=(4, 9)), dtype=torch.float32, device=device)
    for form in ("mixture", "soft"):
        target, wrapped = targets(rng, form, 4, 9, device)
        ignored = int(target.first.flatten()[0])
        result = evaluate(RowLoss(), z, target, ignore_index=ignored, gradient=True)
        assert_close(result, *exact(SoftmaxRecipe(), z, wrapped, ignore_index=ignored), 2.0)
        assert result.status.tolist() == [0] * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's test: memory is touched where it is used only")
def test_offsets_beyond_32_bits(rng, device):
    """Rows that begin at element 2³¹ and 2³², of a tensor whose pages between them are never touched."""
    stride = 2**31 + 64
    try:
        z = torch.empty(2 * stride + 40, dtype=torch.float16).as_strided((3, 40), (stride, 1))
    except RuntimeError:
        pytest.skip("this machine does not promise 8 GB of address space")
    values = torch.tensor(rng.normal(size=(3, 40)), dtype=torch.float16)
    z.copy_(values)
    target, wrapped = targets(rng, "index", 3, 40, device)
    losses, gradient = exact(SoftmaxRecipe(), values, wrapped)
    assert_close(softmax_evaluate(RowLoss(), z, target, gradient=z, tile=Tile(1, 16, 4)), losses, gradient, 2.0)


def test_results_do_not_depend_on_the_run(rng, device):
    z = torch.tensor(rng.normal(size=(8, 50)), dtype=torch.bfloat16, device=device)
    target, _ = targets(rng, "soft", 8, 50, device)
    a, b = (softmax_evaluate(RowLoss("brier"), z, target, gradient=True) for _ in range(2))
    assert torch.equal(a.losses, b.losses)
    assert torch.equal(a.gradient, b.gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaling_a_stored_gradient(rng, device, dtype):
    gradient = torch.tensor(rng.normal(size=(3, 3000)), dtype=dtype, device=device)
    gradient[1] = 0
    expected = gradient.double() * 2.5
    assert scale_in_place(gradient, torch.tensor(2.5, device=device)) is gradient
    torch.testing.assert_close(gradient.double(), expected, rtol=torch.finfo(dtype).eps, atol=0)
    before = gradient.clone()
    scale_in_place(gradient, torch.ones((), device=device))
    assert torch.equal(gradient, before)
    scale_in_place(gradient, torch.tensor(INF, device=device))
    assert not gradient[1].any()
    with pytest.raises(InputError, match="single number"):
        scale_in_place(gradient, torch.ones(2, device=device))
    with pytest.raises(InputError, match="contiguous"):
        scale_in_place(gradient.t(), torch.ones(1, device=device))


@EVALUATE
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": RowLoss("focla")}, "unknown loss family 'focla'"),
        ({"loss": RowLoss(class_weight=torch.ones(3))}, r"class_weight has shape \(3,\), expected \(4,\)"),
        ({"logits": torch.zeros(2, 0)}, "no classes"),
        ({"logits": torch.zeros(2, 4, 1)}, r"expected rows \(N, C\)"),
        ({"targets": TargetRows(torch.zeros(3, dtype=torch.int64))}, r"targets has shape \(3,\), expected \(2,\)"),
        ({"targets": TargetRows(torch.zeros(2, 3))}, r"expected \(2, 4\)"),
        ({"targets": TargetRows(torch.zeros(2))}, r"call \.long\(\)"),
        ({"targets": TargetRows(torch.zeros(2, 4, dtype=torch.int64))}, r"call \.float\(\)"),
        ({"targets": TargetRows(*[torch.zeros(2, dtype=torch.int64)] * 2)}, "both its second classes and its share"),
        ({"row_weight": torch.ones(5)}, r"row_weight has shape \(5,\), expected \(2,\)"),
        ({"targets": TargetRows(torch.zeros(2, dtype=torch.int64, device="meta"))}, "targets is on meta"),
    ],
)
def test_what_does_not_fit_together_is_refused(evaluate, arguments, message):
    call = {
        "loss": RowLoss(), "logits": torch.zeros(2, 4), "targets": TargetRows(torch.zeros(2, dtype=torch.int64)),
        **arguments,
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        evaluate(**call)


def test_what_the_kernels_do_not_take(device):
    target = index([0, 1], device)
    z = torch.zeros(2, 4, device=device)
    with pytest.raises(InputError, match="float64; the kernels take float32"):
        softmax_evaluate(RowLoss(), z.double(), target)
    with pytest.raises(InputError, match=r"expected \(2, 4\)"):
        softmax_evaluate(RowLoss(), z, target, gradient=torch.zeros(4, 2, device=device))
    with pytest.raises(InputError, match="stride 1"):
        softmax_evaluate(RowLoss(), z, target, gradient=torch.zeros(4, 2, device=device).t())
    assert supports(z)
    assert not supports(z.double())


def test_the_plain_reference_takes_float64(rng, device):
    z = torch.tensor(rng.normal(size=(4, 6)), dtype=torch.float64, device=device)
    for form in FORMS:
        for family, parameters in PARAMETERS.items():
            target, wrapped = targets(rng, form, 4, 6, device)
            recipe = SoftmaxRecipe(family, parameters, z_loss=0.01, shift=np.ones(6))
            result = reference.softmax_evaluate(RowLoss.from_recipe(recipe, device), z, target, gradient=True)
            losses, gradient = exact(recipe, z, wrapped)
            np.testing.assert_allclose(result.losses.cpu(), losses, rtol=1e-12)
            np.testing.assert_allclose(result.gradient.cpu(), gradient, rtol=1e-12, atol=1e-14)


def test_zero_rows_of_soft_targets_against_the_reference(device):
    z = torch.tensor([[1.0, 2.0, 3.0]], device=device)
    result = softmax_evaluate(RowLoss(), z, soft([[0.0, 0.0, 0.0]], device), gradient=True)
    assert_close(result, *exact(SoftmaxRecipe(), z, ClassRows(np.zeros((1, 3)))), 1.0)
