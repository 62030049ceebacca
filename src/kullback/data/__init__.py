"""From a data file to arrays a model can learn from: readers, target inference, encoding, splits.

Tables are pyarrow tables throughout. A table that a reader of this package returns carries, in its schema's
metadata, which file it came from and what the reader noticed, so that later errors can name file, row and column;
a table made by hand works just as well.
"""

from kullback.data.encoder import Encoded, EncodingCounts, FeatureEncoder
from kullback.data.files import SUPPORTED_SUFFIXES, iter_batches, read_table
from kullback.data.origin import read_notes
from kullback.data.split import Split, split_rows
from kullback.data.target import TargetPlan, plan_target

__all__ = [
    "SUPPORTED_SUFFIXES",
    "Encoded",
    "EncodingCounts",
    "FeatureEncoder",
    "Split",
    "TargetPlan",
    "iter_batches",
    "plan_target",
    "read_notes",
    "read_table",
    "split_rows",
]
