"""Errors and warnings a user can meet, in one place so that every layer raises the same ones.

Everything that is the caller's to mend derives from `InputError`, which is also a `ValueError`: library users
catch it as they catch NumPy's and scikit-learn's own, and the command line turns it into one screen of text and
exit code 2.
"""


class KullbackError(Exception):
    """Base class of every error Kullback raises on purpose."""


class InputError(KullbackError, ValueError):
    """Something given to Kullback cannot be used; the message names it and says what to do."""


class TargetError(InputError):
    """A target is out of range, not finite, or of the wrong shape; the message names the row and the value."""


class ShapeError(InputError):
    """Arrays that belong together have shapes that do not match."""


class SpellingError(InputError):
    """A loss spelling such as ``"cross_entropy(label_smoothing=0.1)"`` cannot be read."""


class DataError(InputError):
    """A data file, a column or a row cannot be used; the message names it."""


class ModelError(InputError):
    """A model directory is missing, damaged, edited, or written by a newer version."""


class NoProbabilitiesError(InputError, AttributeError):
    """The loss elicits no probabilities; the message names one that does."""


class KullbackWarning(UserWarning):
    """Base class of every warning Kullback gives."""


class InfiniteLossWarning(KullbackWarning):
    """A row's loss is +inf because a class that holds target mass has probability zero."""


class NotConvergedWarning(KullbackWarning):
    """A solver stopped before its tolerance; the message gives the figure reached and what to do."""


class SeparableWarning(KullbackWarning):
    """Classes are told apart without a mistake and nothing penalises weights, so no finite optimum exists."""
