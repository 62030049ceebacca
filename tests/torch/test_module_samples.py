"""PyTorch's own sample constructions, inputs and errors of these modules, and of the linear function."""

from __future__ import annotations

import pytest
import torch

import kullback.torch as kt
from kullback.errors import InputError

pytest.importorskip("expecttest", reason="PyTorch's testing tools need expecttest")
modules = pytest.importorskip("torch.testing._internal.common_modules")
methods = pytest.importorskip("torch.testing._internal.common_methods_invocations")

OURS = {
    "CrossEntropyLoss": kt.CrossEntropyLoss,
    "NLLLoss": kt.NLLLoss,
    "BCEWithLogitsLoss": kt.BCEWithLogitsLoss,
    "KLDivLoss": kt.KLDivLoss,
    "LinearCrossEntropyLoss": kt.LinearCrossEntropyLoss,
}
KNOWN = [info for info in modules.module_db if info.module_cls.__name__ in OURS]


def samples(info):
    return info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=True)


def built(kind, call):
    return kind(*call.args, **call.kwargs)


def differentiated(module, call):
    inputs = [t for t in (*call.args, *call.kwargs.values()) if isinstance(t, torch.Tensor) and t.requires_grad]
    inputs += [p for p in module.parameters() if p.requires_grad]
    value = module(*call.args, **call.kwargs)
    incoming = torch.linspace(1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    return value, torch.autograd.grad(value, inputs, incoming)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("info", KNOWN, ids=lambda info: info.module_cls.__name__)
def test_samples(info):
    n_samples = 0
    for sample in samples(info):
        theirs = built(info.module_cls, sample.constructor_input)
        ours = built(OURS[info.module_cls.__name__], sample.constructor_input)
        ours.load_state_dict(theirs.state_dict())
        found, wanted = (differentiated(module, sample.forward_input) for module in (ours, theirs))
        torch.testing.assert_close(found, wanted, equal_nan=True)
        n_samples += 1
    assert n_samples > 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "info", [info for info in KNOWN if info.module_error_inputs_func], ids=lambda info: info.module_cls.__name__
)
def test_errors(info):
    n_errors = 0
    every = info.module_error_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=False, training=True)
    for error in every:
        sample = error.module_error_input
        with pytest.raises(error.error_type) as raised:
            built(OURS[info.module_cls.__name__], sample.constructor_input)(
                *sample.forward_input.args, **sample.forward_input.kwargs
            )
        assert isinstance(raised.value, InputError)
        n_errors += 1
    assert n_errors


@pytest.mark.parametrize(
    "op", [op for op in methods.op_db if op.name.endswith("linear_cross_entropy") and not op.variant_test_name]
)
def test_errors_of_the_function(op):
    n_errors = 0
    for error in op.error_inputs("cpu"):
        sample = error.sample_input
        with pytest.raises(error.error_type) as raised:
            kt.linear_cross_entropy(sample.input, *sample.args, **sample.kwargs)
        assert isinstance(raised.value, InputError)
        n_errors += 1
    assert n_errors
