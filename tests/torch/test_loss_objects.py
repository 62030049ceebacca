"""Every loss object on tensors against the same object on arrays."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

import kullback
import kullback.torch as kt
from kullback.errors import InputError, SpellingError
from kullback.losses import CATALOGUE
from kullback.torch import objects

N, C = 6, 4
SETTINGS = {"balanced_softmax": {"class_counts": [1, 2, 3, 4]}, "ldam": {"class_counts": [1, 2, 3, 4]}}
LOSSES = [kind(**SETTINGS.get(name, {})) for name, kind in CATALOGUE.items()] + [
    kullback.CrossEntropy(class_weight=[1, 2, 3, 4], label_smoothing=0.1, temperature=2.0),
    kullback.CrossEntropy(priors=[1, 2, 3, 4], adjustment=0.5),
    kullback.CrossEntropy(priors=[1, 2, 3, 4], softcap=3.0),
    kullback.CrossEntropy(softcap=3.0, z_loss=0.1),
    kullback.BinaryCrossEntropy(positive_weight=[1, 2, 3, 4], ignore_index=-1),
]


FOCAL, LABELS = kt.functional("focal"), kt.functional("binary_cross_entropy")


def input_of(loss):
    """Logits, or what else the loss takes."""
    logits = torch.randn(N, C, dtype=torch.float64)
    if "probabilities" in loss.name:
        logits = logits.softmax(1)
    elif loss.link == "log":
        logits = logits.log_softmax(1)
    return logits.requires_grad_()


def targets_of(loss):
    """Pairs of the same targets for tensors and for arrays."""
    if loss.target_form == "labels":
        labels = torch.randint(0, 2, (N, C))
        if loss.ignore_index == -1:
            labels[0, 0] = -1
        return [(labels, labels.numpy())]
    index = torch.tensor([0, 1, 2, 3, 1, -100])
    soft = torch.rand(N, C, dtype=torch.float64)
    first, second = torch.randint(0, C, (2, N))
    share = torch.rand(N, dtype=torch.float64)
    mixture = kullback.ClassMixture(first.numpy(), second.numpy(), share.numpy())
    return [(index, index.numpy()), (soft, soft.numpy()), (kt.Mixture(first, second, share), mixture)]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_values_and_gradients(loss):
    function = kt.functional(loss)
    logits = input_of(loss)
    weight = torch.rand(N, dtype=torch.float64)
    for target, same in targets_of(loss):
        for choices in ({}, {"denominator": "examples"}, {"reduction": "sum"}, {"reduction": "none"}):
            expected, wanted = loss.value_and_gradient(
                logits.detach().numpy(), same, sample_weight=weight.numpy(), **choices
            )
            value = function(logits, target, sample_weight=weight, **choices)
            gradient = torch.autograd.grad(value, logits, torch.ones_like(value))[0]
            np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-11)
            np.testing.assert_allclose(gradient.numpy(), wanted, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("loss", ["focal(gamma=2)", "brier", "binary_cross_entropy", "cross_entropy(z_loss=0.1)"])
def test_second_derivatives(loss):
    function = kt.functional(loss)
    logits = torch.randn(3, C, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 2, (3, C)) if loss.startswith("binary") else torch.randint(0, C, (3,))
    for choices in ({}, {"reduction": "none"}):
        assert torch.autograd.gradcheck(lambda z, c=choices: function(z, target, **c), logits)
        assert torch.autograd.gradgradcheck(lambda z, c=choices: function(z, target, **c), logits)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    logits, target = torch.randn(N, C).to(dtype), torch.randint(0, C, (N,))
    function = kt.functional(loss)
    narrow, wide = logits.clone().requires_grad_(), logits.float().requires_grad_()
    value, expected = function(narrow, target), function(wide, target)
    assert value.dtype == dtype
    torch.testing.assert_close(value, expected.to(dtype))
    value.backward()
    expected.backward()
    torch.testing.assert_close(narrow.grad, wide.grad.to(dtype))


def test_classes_lie_at_dimension_one():
    logits, target = torch.randn(2, C, 3), torch.randint(0, C, (2, 3))
    for loss in ("cross_entropy(label_smoothing=0.1)", "poly"):
        function = kt.functional(loss)
        flat = function(logits.movedim(1, 2).reshape(-1, C), target.reshape(-1), reduction="none")
        torch.testing.assert_close(function(logits, target, reduction="none"), flat.reshape(2, 3))


@dataclasses.dataclass(frozen=True)
class Halved(kullback.CrossEntropy):
    """A loss of a user's own, which no spelling brings back."""

    name = "halved"

    def value_and_gradient(self, *args, **kwargs):
        value, gradient = super().value_and_gradient(*args, **kwargs)
        gradient *= 0.5
        return value * 0.5, gradient

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) * 0.5


def test_a_loss_of_the_users_own():
    logits, target = torch.randn(N, C, requires_grad=True), torch.randint(0, C, (N,))
    own, usual = kt.functional(Halved())(logits, target), kt.cross_entropy(logits, target)
    torch.testing.assert_close(own, usual / 2)
    torch.testing.assert_close(torch.autograd.grad(own, logits)[0], torch.autograd.grad(usual, logits)[0] / 2)
    with pytest.raises(NotImplementedError, match="not made in this process"):
        torch.ops.kullback.object_loss(
            logits, target, None, None, None, "halved [99]", "mean", "weights", "nan", False, torch.float32, [N]
        )


@pytest.mark.parametrize("loss", ["cross_entropy(label_smoothing=0.1)", "focal(gamma=2)", Halved()], ids=str)
def test_modules_and_functions_can_be_saved_and_sent(loss):
    """`torch.save` of a whole model, and processes that are spawned, pickle them."""
    logits, target = torch.randn(N, C), torch.randint(0, C, (N,))
    model = torch.nn.ModuleDict({"loss": kt.Loss(loss, reduction="sum")})
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)["loss"]
    assert torch.equal(again(logits, target), model["loss"](logits, target))
    assert again.extra_repr() == model["loss"].extra_repr()
    function = pickle.loads(pickle.dumps(kt.functional(loss)))
    assert torch.equal(function(logits, target), kt.functional(loss)(logits, target))
    assert torch.equal(copy.deepcopy(model["loss"])(logits, target), model["loss"](logits, target))


def test_a_loss_of_the_users_own_lives_as_long_as_it_is_needed():
    logits, target = torch.randn(N, C, requires_grad=True), torch.randint(0, C, (N,))
    weight = torch.randn(C, C, requires_grad=True)
    expected = torch.autograd.grad(kt.cross_entropy(logits, target, reduction="none").sum() / 2, logits)[0]
    gc.collect()
    before = len(objects._own)
    value = kt.functional(Halved())(logits, target, reduction="none").sum()  # its gradient is made later
    gc.collect()
    torch.testing.assert_close(torch.autograd.grad(value, logits)[0], expected)
    value = kt.linear_loss(logits, weight, target, Halved(), reduction="none").sum()
    gc.collect()
    wanted = kt.cross_entropy(logits @ weight.T, target, reduction="sum") / 2
    torch.testing.assert_close(*(torch.autograd.grad(v, weight)[0] for v in (value, wanted)))
    del value
    gc.collect()
    assert len(objects._own) == before


def test_the_module_holds_its_choices():
    logits, target = torch.randn(N, C), torch.randint(0, C, (N,))
    module = kt.Loss("focal(gamma=1)", reduction="sum")
    assert "focal(gamma=1" in repr(module)
    torch.testing.assert_close(module(logits, target), kt.functional("focal(gamma=1)")(logits, target, reduction="sum"))
    weight = torch.rand(N)
    torch.testing.assert_close(
        module(logits, target, weight),
        kt.functional(module.loss)(logits, target, sample_weight=weight, reduction="sum"),
    )


def test_empty_policies():
    logits, target = torch.randn(2, C), torch.full((2,), -100)
    for loss in ("cross_entropy", "focal"):
        function = kt.functional(loss)
        assert function(logits, target).isnan()
        assert function(logits, target, empty="zero") == 0
        with pytest.raises(InputError):
            function(logits, target, empty="error")


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda: kt.functional("cross_entrpy"), SpellingError, "did you mean"),
        (
            lambda: FOCAL(torch.zeros(2, 3), torch.tensor([0, 3])),
            IndexError,
            r"Target 3 .*target\[1\]",
        ),
        (lambda: FOCAL(torch.zeros(2, 3), torch.rand(2, 3) - 2), RuntimeError, "soft target"),
        (
            lambda: LABELS(torch.zeros(2, 3), torch.tensor([0, 3])),
            ValueError,
            "one for one",
        ),
        (lambda: LABELS(torch.zeros(2, 3), kt.Mixture(torch.zeros(2), torch.zeros(2), 0.5)), TypeError, "not Mixture"),
        (lambda: LABELS(torch.zeros(2, 3), torch.zeros(2, 3), sample_weight=[1.0, 1.0]), TypeError, "must be a Tensor"),
        (
            lambda: LABELS(torch.zeros(2, 3), torch.zeros(2, 3), sample_weight=torch.ones(3)),
            RuntimeError,
            "per example",
        ),
        (lambda: LABELS(torch.zeros(2, 3), torch.zeros(2, 3), sample_weight=1j * torch.ones(2)), RuntimeError, "real"),
        (lambda: FOCAL(torch.zeros(2, 3), torch.ones(2, 3).requires_grad_()), InputError, "detach"),
        (
            lambda: kt.functional("cross_entropy(priors=[1, 2])")(torch.zeros(2, 3), torch.tensor([0, 1])),
            RuntimeError,
            "2 priors",
        ),
    ],
)
def test_wrong_input(wrong, error, says):
    with pytest.raises(error, match=says):
        wrong()


@pytest.mark.parametrize("form", ["indices", "soft", "mixture"])
def test_the_z_loss_is_weighed_by_the_effective_target_mass_everywhere(form):
    """Σs·λ·lse², with s the class-weighted, smoothed target: what the catalogue, the drop-in and the layer add."""
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(N, C, dtype=torch.float64, generator=generator)
    first, second = torch.randint(0, C, (2, N), generator=generator)
    weight = torch.linspace(0.5, 2, C, dtype=torch.float64)
    dense = {
        "indices": F.one_hot(first, C).double(),
        "soft": torch.rand(N, C, dtype=torch.float64, generator=generator).softmax(1),
        "mixture": 0.3 * F.one_hot(first, C).double() + 0.7 * F.one_hot(second, C).double(),
    }[form]
    target = {"indices": first, "soft": dense, "mixture": kt.Mixture(first, second, 0.3)}[form]
    mass = weight * (0.8 * dense + 0.2 / C)
    z_part = mass.sum(1) * 0.05 * logits.logsumexp(1).square()
    wanted = F.cross_entropy(logits, dense, weight, reduction="none", label_smoothing=0.2) + z_part
    choices = {"weight": weight, "label_smoothing": 0.2, "z_loss": 0.05, "reduction": "none"}
    loss = kullback.CrossEntropy(class_weight=weight.tolist(), label_smoothing=0.2, z_loss=0.05)
    identity = torch.eye(C, dtype=torch.float64)
    torch.testing.assert_close(kt.cross_entropy(logits, target, **choices), wanted)
    torch.testing.assert_close(kt.linear_cross_entropy(logits, identity, target, **choices), wanted)
    torch.testing.assert_close(kt.functional(loss)(logits, target, reduction="none"), wanted)
    torch.testing.assert_close(torch.from_numpy(loss.per_example(logits.numpy(), dense.numpy())), wanted)
