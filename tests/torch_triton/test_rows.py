"""The row kernels against the float64 reference: every loss, target form, option and dtype."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from kullback.kernels.recipe import SoftmaxRecipe  # noqa: E402
from kullback.torch.triton import RowLoss, reference, softmax_evaluate  # noqa: E402
from kullback.torch.triton.families import FAMILIES  # noqa: E402
from kullback.torch.triton.launch import Tile  # noqa: E402

from .cases import FORMS, PARAMETERS, assert_close, exact, targets, vectors  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's own NumPy arithmetic

SMALL = Tile(4, 8, 4)  # makes a row of 21 classes three blocks


def logits_of(rng, n_rows, n_classes, dtype, device, spread=4.0):
    return torch.tensor(rng.normal(0, spread, (n_rows, n_classes)), dtype=torch.float32).to(device, dtype)


def run(how, *args, tile=None, **options):
    if how == "plain":
        return reference.softmax_evaluate(*args, **options)
    return softmax_evaluate(*args, tile=tile, **options)


@pytest.mark.parametrize("how", ["one block", "blocks", "plain"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", PARAMETERS)
def test_every_loss_on_every_target_form(rng, device, family, form, how):
    z = logits_of(rng, 5, 21, torch.float32, device)
    target, wrapped = targets(rng, form, 5, 21, device)
    names = ["class_weight", "shift"] if family == "ldam" else ["class_weight"]
    recipe = SoftmaxRecipe(family, PARAMETERS[family], **vectors(rng, 21, *names))
    result = run(
        how, RowLoss.from_recipe(recipe, device), z, target, gradient=True, tile=SMALL if how == "blocks" else None
    )
    losses, gradient = exact(recipe, z, wrapped)
    assert_close(result, losses, gradient, 4.0)


OPTIONS = {
    "smoothing": {"smoothing": 0.1},
    "smoothing, weights": {"smoothing": 0.3, "class_weight": None},
    "temperature": {"temperature": 2.5},
    "z-loss": {"z_loss": 1e-2, "class_weight": None},
    "softcap": {"softcap": 5.0},
    "offset": {"offset": None},
    "all": {"smoothing": 0.2, "temperature": 0.5, "z_loss": 1e-3, "softcap": 6.0, "offset": None, "class_weight": None},
}


@pytest.mark.parametrize("how", ["one block", "blocks", "plain"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_cross_entropy(rng, device, option, form, how):
    chosen = dict(OPTIONS[option])
    names = [n for n, v in chosen.items() if v is None]
    z = logits_of(rng, 5, 21, torch.float32, device)
    target, wrapped = targets(rng, form, 5, 21, device)
    recipe = SoftmaxRecipe(**{**chosen, **vectors(rng, 21, *names)})
    weight = np.float32([1.0, 0.5, 0.0, 2.0, 1.0])
    result = run(
        how,
        RowLoss.from_recipe(recipe, device),
        z,
        target,
        gradient=True,
        log_sum_exp=True,
        row_weight=torch.tensor(weight, device=device),
        scale=0.25,
        tile=SMALL if how == "blocks" else None,
    )
    losses, gradient = exact(recipe, z, wrapped, row_weight=np.float64(weight), scale=0.25)
    assert_close(result, losses, gradient, 8.0)
    plain = exact(SoftmaxRecipe(), z, wrapped)[0]
    assert not np.allclose(plain * weight, losses)  # the option did something


@pytest.mark.parametrize("family", ["focal", "brier", "one_vs_rest", "ldam"])
@pytest.mark.parametrize("form", FORMS)
def test_options_reach_the_other_losses(rng, device, family, form):
    z = logits_of(rng, 4, 21, torch.float32, device)
    target, wrapped = targets(rng, form, 4, 21, device)
    recipe = SoftmaxRecipe(
        family,
        PARAMETERS[family],
        smoothing=0.2,
        temperature=1.5,
        softcap=9.0,
        z_loss=1e-3,
        **vectors(rng, 21, "class_weight", "offset", "shift"),
    )
    result = run("kernel", RowLoss.from_recipe(recipe, device), z, target, gradient=True, tile=SMALL)
    assert_close(result, *exact(recipe, z, wrapped), 8.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_classes", [3, 70])
def test_half_precision_is_computed_in_float32(rng, device, form, dtype, n_classes):
    z = logits_of(rng, 6, n_classes, dtype, device)
    target, wrapped = targets(rng, form, 6, n_classes, device)
    recipe = SoftmaxRecipe(smoothing=0.1)
    result = run("kernel", RowLoss.from_recipe(recipe, device), z, target, gradient=True)
    losses, gradient = exact(recipe, z, wrapped)
    assert result.gradient.dtype == dtype
    assert result.losses.dtype == torch.float32
    assert_close(result, losses, gradient, 4.0)
    theirs = torch.nn.functional.cross_entropy(
        z,
        target.first if form == "index" else torch.tensor(wrapped.dense(n_classes)).to(z),
        label_smoothing=0.1,
        reduction="none",
    )
    ours = np.abs(result.losses.double().cpu().numpy() - losses)
    assert (ours <= np.abs(theirs.double().cpu().numpy() - losses) + 2e-6).all()


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape(device, data):
    n_rows = data.draw(st.integers(1, 7), label="N")
    n_classes = data.draw(st.one_of(st.integers(1, 40), st.sampled_from([64, 65, 128, 257])), label="C")
    form = data.draw(st.sampled_from(FORMS))
    family = data.draw(st.sampled_from(sorted(PARAMETERS)))
    blocks = data.draw(st.sampled_from([1, 2, 4]), label="blocks")  # few: the interpreter takes its time over each
    block = max(4, 2 ** math.ceil(math.log2(max(n_classes, 2))) // blocks)
    tile = Tile(data.draw(st.sampled_from([2, 4, 8]), label="rows"), block, 4)
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    pad = data.draw(st.integers(0, 3), label="gap between rows")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    z = logits_of(rng, n_rows, n_classes + pad, dtype, device, 3.0)[:, :n_classes]
    target, wrapped = targets(rng, form, n_rows, n_classes, device)
    recipe = SoftmaxRecipe(
        family,
        PARAMETERS[family],
        smoothing=data.draw(st.sampled_from([0.0, 0.1])),
        **vectors(rng, n_classes, "class_weight", "shift"),
    )
    result = softmax_evaluate(
        RowLoss.from_recipe(recipe, device), z, target, gradient=True, argmax=True, log_sum_exp=True, tile=tile
    )
    losses, gradient = exact(recipe, z, wrapped)
    assert_close(result, losses, gradient, 4.0)
    assert torch.equal(result.argmax, z.float().argmax(dim=1))
    np.testing.assert_allclose(result.log_sum_exp.cpu(), z.double().logsumexp(1).cpu(), rtol=1e-6, atol=3e-6)


def test_confident_rows_keep_their_digits(device):
    """p rounds to 1 in float32, but loss and gradient are 1 − p."""
    z = torch.tensor([[30.0, 0.0, 1.0], [25.0, -60.0, 0.0]], device=device)
    from kullback.targets import ClassIndices
    from kullback.torch.rows import TargetRows

    for family in ("cross_entropy", "focal", "brier", "one_vs_rest", "smoothed_zero_one"):
        recipe = SoftmaxRecipe(family, PARAMETERS[family])
        result = softmax_evaluate(
            RowLoss.from_recipe(recipe, device), z, TargetRows(torch.tensor([0, 0], device=device)), gradient=True
        )
        losses, gradient = exact(recipe, z, ClassIndices([0, 0]))
        np.testing.assert_allclose(result.losses.cpu(), losses, rtol=2e-5)
        np.testing.assert_allclose(result.gradient.cpu(), gradient, rtol=2e-5, atol=1e-35)


def test_devices_have_the_same_losses():
    from kullback.kernels.elements import SOFTMAX_FAMILIES

    assert set(FAMILIES) == set(reference.FAMILIES) == set(PARAMETERS) == set(SOFTMAX_FAMILIES)
