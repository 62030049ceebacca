"""Errors a PyTorch user can meet: Kullback's own, which are also of the type that PyTorch raises in the same place.

Code that catches ``IndexError`` around ``F.cross_entropy`` goes on working, and so does code that catches
`kullback.errors.InputError`.
"""

from __future__ import annotations

from kullback.errors import InputError, ShapeError, TargetError


class ClassIndexError(TargetError, IndexError):
    """A class index is outside [0, C); the message names its position and the valid range."""


class SoftTargetError(TargetError, RuntimeError):
    """A soft or multi-label target is negative, above what is allowed, or not finite."""


class BatchSizeError(ShapeError):
    """Logits and targets disagree in the number of examples (a ``ValueError``, as in PyTorch)."""


class TensorShapeError(ShapeError, RuntimeError):
    """A tensor's shape does not fit the logits'."""


class TensorTypeError(InputError, RuntimeError):
    """A tensor has a dtype, or lies on a device, that cannot be used here."""


class TensorKindError(InputError, TypeError):
    """Something that is not a tensor, or not a number, was given where one is needed."""


class LogitsTypeError(InputError, NotImplementedError):
    """Logits that are not floating point, or a tensor that is not dense (PyTorch: ``NotImplementedError``)."""


class SettingError(InputError, RuntimeError):
    """A numeric setting is outside its range."""


class ChoiceError(InputError):
    """A named option has an unknown value (a ``ValueError``, as in PyTorch)."""


class NotSupportedError(InputError, NotImplementedError):
    """A combination that cannot be computed; the message says what to use instead."""
