"""From a data file to a calibrated model, and from a model to predictions: what the command line does."""
