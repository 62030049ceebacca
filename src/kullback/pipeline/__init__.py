"""From a data file to a calibrated model, and from a model to predictions: what the command line does."""

from kullback.pipeline.evaluate import Evaluation, evaluate_file
from kullback.pipeline.fit import FitResult, fit_file
from kullback.pipeline.listener import Listener
from kullback.pipeline.model import Model, Predictions, load_model
from kullback.pipeline.predict import PredictionSummary, predict_file

__all__ = [
    "Evaluation",
    "FitResult",
    "Listener",
    "Model",
    "PredictionSummary",
    "Predictions",
    "evaluate_file",
    "fit_file",
    "load_model",
    "predict_file",
]
