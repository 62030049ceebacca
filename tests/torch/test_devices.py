"""The path of other devices, with the Triton kernels in their interpreter (or plain torch), against the CPU's."""

from __future__ import annotations

import pytest
import torch

import kullback
import kullback.torch as kt
from kullback.losses import CATALOGUE
from kullback.losses.softmax_loss import SoftmaxLoss
from kullback.torch import devices, native, triton
from kullback.torch.linear_rows import LinearPass
from kullback.torch.rows import TargetRows
from kullback.torch.settings import RowSettings
from kullback.torch.triton.row_loss import RowLoss

N, C, D = 7, 5, 3
SETTINGS = [
    RowSettings(),
    RowSettings(smoothing=0.2),
    RowSettings(smoothing=0.2, by_mass=True, temperature=1.5),
    RowSettings(softcap=2.0, z_loss=0.1),
]


def batch(dtype):
    target = torch.tensor([0, 1, 2, 3, 4, -100, 0])
    soft, share = torch.rand(N, C), torch.rand(N)
    forms = [TargetRows(target), TargetRows(soft), TargetRows(target % C, target.flip(0) % C, share)]
    return torch.randn(N, C).to(dtype), forms, torch.rand(C), torch.rand(N)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows(settings, dtype):
    logits, forms, class_weight, row_weight = batch(dtype)
    for target in forms:
        for weights in ((None, None), (class_weight, row_weight)):
            found = devices.cross_entropy(settings, weights[0]).evaluate(
                logits, target, weights[1], 0.5, gradient=True, with_statistics=True
            )
            value, gradient, _, lse, prediction = torch.ops.kullback.softmax_loss(
                logits, *target, weights[1], weights[0], *settings, "sum", "weights", "nan", True, True, dtype, [N]
            )
            torch.testing.assert_close(found.losses.sum().to(dtype), value, rtol=2e-6, atol=2e-6)
            torch.testing.assert_close(found.gradient, gradient / 2, rtol=2e-6, atol=2e-6)
            counts = found.argmax >= 0
            torch.testing.assert_close(found.log_sum_exp[counts], lse[counts], rtol=2e-6, atol=2e-6)
            assert torch.equal(found.argmax[counts], prediction[counts])


COUNTS = {"class_counts": [1, 2, 3, 4, 5]}
CLASS_LOSSES = [
    kind(**(COUNTS if name in ("balanced_softmax", "ldam") else {}))
    for name, kind in CATALOGUE.items()
    if kind.target_form == "classes"
]


def test_every_loss_of_the_softmax_family_runs_on_devices():
    there = {loss.name for loss in CLASS_LOSSES if devices.loss_object(loss, C, torch.device("cpu")) is not None}
    assert there == {loss.name for loss in CLASS_LOSSES if isinstance(loss, SoftmaxLoss)}
    assert {"cross_entropy", "focal", "jensen_shannon", "ldam"} < there


@pytest.mark.parametrize("loss", ["focal(gamma=2)", "cross_entropy(priors=[1, 2, 3, 4, 5])", "brier", "jensen_shannon"])
def test_loss_objects(loss):
    logits, forms, _, row_weight = batch(torch.float32)
    known = kullback.parse_loss(loss)
    found = devices.loss_object(known, C, logits.device)
    assert found is not None
    for target, same in zip(forms[:2], (forms[0].first, forms[1].first), strict=True):
        result = found.evaluate(logits, target, row_weight, gradient=True)
        leaf = logits.clone().requires_grad_()
        value = kt.functional(known)(leaf, same, sample_weight=row_weight, reduction="none")
        torch.testing.assert_close(result.losses, value.detach(), rtol=1e-5, atol=1e-6)
        gradient = torch.autograd.grad(value.sum(), leaf)[0]
        torch.testing.assert_close(result.gradient, gradient, rtol=1e-5, atol=1e-6)


TARGET = torch.tensor([0, 1, 2, 3, 4, -100, 0])
MIXTURE = kt.Mixture(TARGET % C, TARGET.flip(0) % C, 0.3)
WEIGHT, SHARES = torch.linspace(0.5, 2, C), torch.linspace(0, 1, N)
LAYER = torch.linspace(-1, 1, C * C).reshape(C, C)
PUBLIC = {
    "mean": lambda z: kt.cross_entropy(z, TARGET, WEIGHT, label_smoothing=0.1, sample_weight=SHARES),
    "examples": lambda z: kt.cross_entropy(z, TARGET, WEIGHT, denominator="examples"),
    "per example": lambda z: kt.cross_entropy(z, TARGET, reduction="none"),
    "soft": lambda z: kt.cross_entropy(z, torch.linspace(0, 1, N * C).reshape(N, C), softcap=3.0, z_loss=0.1),
    "soft, below 0": lambda z: kt.cross_entropy(z, torch.linspace(-1, 2, N * C).reshape(N, C), WEIGHT),
    "mixture": lambda z: kt.cross_entropy(z, MIXTURE, temperature=1.5),
    "images": lambda z: kt.cross_entropy(z[:6].reshape(2, 3, C).movedim(2, 1), TARGET[:6].reshape(2, 3)),
    "statistics": lambda z: kt.cross_entropy_with_statistics(z, TARGET)[0],
    "overwritten": lambda z: kt.cross_entropy(z * 1, TARGET, overwrite_input=True),
    "nothing counts": lambda z: kt.cross_entropy(z, torch.full((N,), -100), empty="zero"),
    "focal": lambda z: kt.functional("focal(gamma=2)")(z, TARGET, sample_weight=SHARES),
    "priors": lambda z: kt.functional("cross_entropy(priors=[1, 2, 3, 4, 5])")(z, TARGET),
    "layer": lambda z: kt.linear_cross_entropy(
        z, LAYER.to(z), TARGET, linear_bias=WEIGHT.to(z), z_loss=0.01, chunk_rows=3
    ),
    "layer per example": lambda z: kt.linear_cross_entropy(z, LAYER.to(z), MIXTURE, reduction="none", weight=WEIGHT),
    "layer, focal": lambda z: kt.linear_loss(z, LAYER.to(z), TARGET, "focal(gamma=2)"),
}


def differentiated(function, dtype):
    z = torch.linspace(-2, 3, N * C).sin().mul(3).reshape(N, C).to(dtype).requires_grad_()
    value = function(z)
    incoming = torch.linspace(1, 2, value.numel()).to(value.dtype).reshape(value.shape)
    return value.detach(), torch.autograd.grad(value, z, incoming)[0]


@pytest.mark.filterwarnings("ignore:soft targets below 0")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_takes_that_path_where_the_kernels_do_not_reach(name, dtype, monkeypatch):
    wanted = differentiated(PUBLIC[name], dtype)
    ran = []
    row_function = devices.row_function
    monkeypatch.setattr(devices, "row_function", lambda logits: ran.append(logits.shape) or row_function(logits))
    monkeypatch.setattr(native, "runs", lambda tensor: False)
    found = differentiated(PUBLIC[name], dtype)
    assert ran
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(found, wanted, **close)


HEAD = kt.LinearCrossEntropy(C, C, bias=True, drop_ignored=True, chunk_rows=2)
HELD_HEAD = kt.LinearCrossEntropy(C, C, bias=True, chunk_rows=2)
HELD_HEAD.load_state_dict(HEAD.state_dict())
NOBODY = torch.full((N,), -100)
DROPPING = {
    "mean": lambda z, drop: kt.linear_cross_entropy(z, LAYER, TARGET, drop_ignored=drop),
    "per example": lambda z, drop: kt.linear_cross_entropy(z, LAYER, TARGET, reduction="none", drop_ignored=drop),
    "sample weights": lambda z, drop: kt.linear_cross_entropy(
        z, LAYER, torch.arange(N) % C, sample_weight=(TARGET != -100).float(), drop_ignored=drop
    ),
    "statistics": lambda z, drop: kt.linear_cross_entropy_with_statistics(z, LAYER, TARGET, drop_ignored=drop)[0],
    "focal": lambda z, drop: kt.linear_loss(z, LAYER, TARGET, "focal(gamma=2)", drop_ignored=drop),
    "module": lambda z, drop: (HEAD if drop else HELD_HEAD)(z, TARGET),
    "nothing counts": lambda z, drop: kt.linear_cross_entropy(z, LAYER, NOBODY, empty="zero", drop_ignored=drop),
}


@pytest.mark.parametrize("name", DROPPING)
def test_ignored_rows_are_left_out_of_the_products_on_devices_if_asked_to(name, monkeypatch):
    rows = []
    row_function = devices.row_function

    def watched(logits):
        run = row_function(logits)
        return lambda loss, logits, *args, **keywords: rows.append(len(logits)) or run(loss, logits, *args, **keywords)

    monkeypatch.setattr(devices, "row_function", watched)
    monkeypatch.setattr(native, "runs", lambda tensor: False)
    found = []
    for drop in (True, False):
        rows.clear()
        z = torch.linspace(-2, 3, N * C).sin().reshape(N, C)
        z[5] = torch.nan  # of the ignored row
        z.requires_grad_()
        value = DROPPING[name](z, drop)
        found.append((value.detach(), *torch.autograd.grad(value, z, torch.ones_like(value))))
        passes = 2 if name == "per example" else 1
        assert sum(rows) == passes * (N if not drop else 0 if name == "nothing counts" else N - 1)
    torch.testing.assert_close(*found)
    assert not found[0][1][5].any()


def test_losses_without_a_kernel_are_left_to_the_cpu():
    for loss in ("weston_watkins", "binary_cross_entropy"):
        assert devices.loss_object(kullback.parse_loss(loss), C, torch.device("cpu")) is None


def test_a_layer():
    _, forms, class_weight, row_weight = batch(torch.float32)
    input, weight, bias = torch.randn(N, D), torch.randn(C, D), torch.randn(C)
    settings = RowSettings(smoothing=0.1)
    for target in forms:
        found = devices.cross_entropy(settings, class_weight).linear(
            (input, weight, bias), target, row_weight, (True, True, True), with_statistics=True, chunk_rows=3
        )
        found = LinearPass(found.losses, *found[2:])
        wanted = torch.ops.kullback.linear_loss(
            input, weight, bias, *target, row_weight, class_weight, *settings, "", "none", "weights", "nan",
            [True, True, True], True, None, False, torch.float32, [N],
        )  # fmt: skip
        torch.testing.assert_close(found.losses, wanted[0], rtol=1e-5, atol=1e-5)
        for mine, expected in zip(found[1:4], wanted[1:4], strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


def test_a_class_out_of_range_makes_its_row_nan_where_nothing_may_wait():
    logits = torch.randn(3, C)
    target = TargetRows(torch.tensor([0, C, 1]))
    found = devices.cross_entropy(RowSettings(), None).evaluate(logits, target, None, gradient=True)
    assert found.losses.isnan().tolist() == [False, True, False]
    assert found.gradient.isnan().all(dim=1).tolist() == [False, True, False]
    with pytest.raises(IndexError, match=f"target {C} is not a class"):
        triton.check_targets(found, target, C)


@pytest.mark.filterwarnings("error")
def test_numbers_of_classes_are_copied_to_a_device():
    loss = kullback.CrossEntropy(class_weight=[1, 2, 3])
    kept = RowLoss.from_recipe(loss._recipe(3), "cpu").class_weight
    kept.zero_()
    assert RowLoss.from_recipe(loss._recipe(3), "cpu").class_weight.tolist() == [1, 2, 3]
