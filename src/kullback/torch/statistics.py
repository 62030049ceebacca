"""What a pass over the logits knows besides the loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kullback.torch import plain
from kullback.torch.rows import Batch
from kullback.torch.settings import RowSettings


class Statistics(NamedTuple):
    """Figures of a batch, shaped like its index targets; none of them carries a gradient.

    Attributes:
        log_sum_exp: of what the softmax is taken of, in nats; 0 where the example does not count, NaN where one of its
            logits is NaN or +inf.
        prediction: the class with the largest logit, int64, the first of equal ones; −1 where there is none: the
            example does not count, or one of its logits is NaN or +inf.
        accuracy: 0-d, the share of counted examples whose class is the prediction (of soft rows and mixtures, the
            mean target mass on it); NaN if none counts.
    """

    log_sum_exp: Tensor
    prediction: Tensor
    accuracy: Tensor


def statistics_of(batch: Batch, settings: RowSettings, lse: Tensor, prediction: Tensor) -> Statistics:
    """Dress a pass' per-row figures in the user's shape, and count hits."""
    target = batch.target
    with torch.no_grad():
        counts = plain.counted_rows(target, batch.sample_weight, settings.ignore_index)
        if target.is_soft():
            known = prediction >= 0
            hits = target.first.gather(1, torch.where(known, prediction, 0)[:, None])[:, 0].to(lse.dtype) * known
        elif target.second is None or target.share is None:
            hits = (target.first == prediction).to(lse.dtype)
        else:
            share = target.share.to(lse.dtype)
            hits = (target.first == prediction) * share + (target.second == prediction) * (1 - share)
        accuracy = torch.where(counts, hits, 0.0).sum() / counts.sum()
    return Statistics(batch.restored(lse.detach()), batch.restored(prediction), accuracy)
