"""Cross-entropy of rows in ordinary torch operations: right on every device, and differentiable any number of times.

It serves devices that have no kernel of their own, gradients with respect to targets, and second derivatives. The
kernels are tested against it, and it against the NumPy reference.

With x = softcap(z) / T, p = softmax(x), s the effective target and S = Σs, a row's loss is −Σ s·log p + S·λ·lse², and
its gradient in x is S·p·(1 + 2λ·lse) − s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kullback.torch.rows import TargetRows, accumulation_dtype, widest_dtype
from kullback.torch.settings import RowSettings


def counted_rows(target: TargetRows, row_weight: Tensor | None, ignore_index: int | None) -> Tensor:
    """Which rows count, bool (N,): weight not zero, index not the ignored one."""
    first = target.first
    counts = torch.ones(first.shape[0], dtype=torch.bool, device=first.device)
    if ignore_index is not None and not target.is_soft() and target.second is None:
        counts = counts & (first.long() != ignore_index)  # as uint8, −100 would be 156
    if row_weight is not None:
        counts = counts & (row_weight != 0)
    return counts


def row_class_weight(target: TargetRows, class_weight: Tensor | None, counts: Tensor) -> Tensor:
    """Each row's own class weight ω, (N,): w_y, its blend for mixtures, the mean over the mass of soft rows."""
    if class_weight is None:
        dtype = accumulation_dtype(target.first.dtype) if target.is_soft() else torch.float32
        return torch.ones(counts.shape, dtype=dtype, device=counts.device)
    if target.is_soft():
        mass = target.first.to(class_weight.dtype)
        total = mass.sum(dim=1)
        return torch.where(total > 0, (mass * class_weight).sum(dim=1) / total.clamp_min(1e-38), 1.0)
    omega = class_weight[torch.where(counts, target.first, 0).long()]
    if target.second is None or target.share is None:
        return omega
    other = class_weight[torch.where(counts, target.second, 0).long()]
    share = target.share.to(omega.dtype)
    return share * omega + (1 - share) * other


def mean_shares(
    target: TargetRows,
    class_weight: Tensor | None,
    row_weight: Tensor | None,
    ignore_index: int | None,
    kind: str,
) -> Tensor:
    """What each row adds to the mean's denominator, (N,): row weight × ω (``"weights"``) or 1, and 0 if not counted."""
    counts = counted_rows(target, row_weight, ignore_index)
    if kind == "examples" or (class_weight is None and row_weight is None):
        return counts.to(torch.float32)
    omega = row_class_weight(target, class_weight, counts)
    if row_weight is not None:
        omega = omega * row_weight
    return torch.where(counts, omega, 0)


def denominator(
    target: TargetRows,
    class_weight: Tensor | None,
    row_weight: Tensor | None,
    ignore_index: int | None,
    kind: str,
) -> Tensor:
    """What the mean divides by: Σ row weight × ω over counted rows (``"weights"``), or their number."""
    shares = mean_shares(target, class_weight, row_weight, ignore_index, kind)
    return shares.sum(dtype=widest_dtype(shares.device))


def out_of_range(target: TargetRows, n_classes: int, counts: Tensor) -> Tensor:
    """Counted rows with a class outside [0, C), bool (N,); none for soft rows."""
    if target.is_soft():
        return torch.zeros_like(counts)
    # in int64, as narrow integers would wrap the number of classes
    bad = torch.zeros_like(counts)
    for classes in (target.first, target.second):
        if classes is not None:
            bad = bad | (classes.long() < 0) | (classes.long() >= n_classes)
    return bad & counts


class PlainRows:
    """Everything a row's loss and gradient are made of, in float32 or float64.

    Attributes:
        counts: bool (N,); rows that do not count carry zeros instead of their logits.
        x: (N, C) what the softmax is taken of; all zeros for rows that are masked throughout.
        lse: (N,) log Σ exp x.
        log_p: (N, C).
        dead: bool (N,); counted rows whose logits are all −inf.
    """

    def __init__(self, settings: RowSettings, logits: Tensor, counts: Tensor) -> None:
        self.settings = settings
        self.counts = counts
        z = torch.where(counts[:, None], logits.to(accumulation_dtype(logits.dtype)), 0.0)
        if settings.softcap:
            bent = torch.tanh(z / settings.softcap)
            self.slope: Tensor | None = 1 - bent.square()
            self.bend: Tensor | None = -2 * bent * self.slope / settings.softcap
            z = torch.where(z == -torch.inf, z, settings.softcap * bent)  # a masked class stays masked
        else:
            self.slope = self.bend = None
        self.dead = (z == -torch.inf).all(dim=1)
        z = torch.where(self.dead[:, None], 0.0, z)
        self.x = z / settings.temperature
        # torch's log_softmax keeps what matters of rows with −inf entries, and is NaN where a logit is NaN or +inf
        self.log_p = torch.log_softmax(self.x, dim=1)
        self.lse = torch.logsumexp(self.x, dim=1)

    def statistics(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log-sum-exps and predictions (N,), as `kullback.torch.statistics.Statistics` defines them."""
        sound = (logits < torch.inf).all(dim=1)
        lse = torch.where(self.dead, -torch.inf, torch.where(sound, self.lse, torch.nan))
        prediction = torch.where(self.counts & sound, logits.argmax(dim=1), -1)
        return torch.where(self.counts, lse, 0.0), prediction

    def masses(self, target: TargetRows, class_weight: Tensor | None) -> Tensor:
        """The effective target s, (N, C): w·((1 − ε)·t + ε/C), or Σt·ε/C where smoothing goes by mass."""
        n_classes = self.x.shape[1]
        eps = self.settings.smoothing
        if target.is_soft():
            mass = torch.where(self.counts[:, None], target.first.to(self.x.dtype), 0.0)
        else:
            mass = torch.zeros_like(self.x)
            # a class out of range reads as class 0 here, and its row is made NaN at the end
            wrong = out_of_range(target, n_classes, self.counts)
            known = self.counts & ~wrong
            first = torch.where(known, target.first, 0).long()[:, None]
            if target.second is None or target.share is None:
                mass = mass.scatter(1, first, 1.0)
            else:
                share = target.share.to(mass.dtype)[:, None]
                second = torch.where(known, target.second, 0).long()[:, None]
                mass = mass.scatter_add(1, first, share).scatter_add(1, second, 1 - share)
            mass = torch.where(wrong[:, None], torch.nan, mass)
        if eps:
            total = mass.sum(dim=1, keepdim=True) if self.settings.by_mass else 1.0
            mass = (1 - eps) * mass + eps / n_classes * total
        return mass if class_weight is None else mass * class_weight.to(mass.dtype)

    def losses(self, masses: Tensor) -> Tensor:
        """Per-row losses (N,); exactly 0 for rows that do not count."""
        # 0·(−inf): a masked class without mass costs nothing, and takes no gradient
        log_p = torch.where((masses == 0) & (self.log_p == -torch.inf), 0.0, self.log_p)
        losses = -(masses * log_p).sum(dim=1)
        if self.settings.z_loss:
            losses = losses + self.settings.z_loss * masses.sum(dim=1) * self.lse.square()
        losses = torch.where(self.dead & (masses != 0).any(dim=1), torch.inf, losses)
        return torch.where(self.counts, losses, 0.0)

    def gradient(self, masses: Tensor) -> Tensor:
        """∂loss/∂logits (N, C) of each row; exactly 0 for rows that do not count."""
        p = torch.where(self.dead[:, None], 0.0, self.log_p.exp())
        pull = masses.sum(dim=1)
        if self.settings.z_loss:
            pull = pull * (1 + 2 * self.settings.z_loss * self.lse)
        g = (p * pull[:, None] - masses) / self.settings.temperature
        if self.slope is not None:
            g = g * self.slope
        return torch.where(self.counts[:, None], g, 0.0)

    def hessian_product(self, masses: Tensor, direction: Tensor) -> Tensor:
        """(∂²loss/∂logits²)·direction (N, C) of each row.

        In x: S·(1 + 2λ·lse)·(p∘v − p·(p·v)) + 2λ·S·p·(p·v). Softcap adds its own curvature.
        """
        settings = self.settings
        p = torch.where(self.dead[:, None], 0.0, self.log_p.exp())
        total = masses.sum(dim=1, keepdim=True)
        pull = total * (1 + 2 * settings.z_loss * self.lse[:, None])
        v = direction if self.slope is None else direction * self.slope
        along = (p * v).sum(dim=1, keepdim=True)
        product = (pull * p * (v - along) + 2 * settings.z_loss * total * p * along) / settings.temperature**2
        if self.slope is not None and self.bend is not None:
            product = product * self.slope + (p * pull - masses) / settings.temperature * self.bend * direction
        return torch.where(self.counts[:, None], product, 0.0)


def losses(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    class_weight: Tensor | None,
    row_weight: Tensor | None,
) -> Tensor:
    """Row weight × loss, (N,), differentiable in logits, target, weights: see the module.

    Args:
        settings: the loss.
        logits: (N, C) of any float dtype.
        target: N targets.
        class_weight: (C,) or None.
        row_weight: (N,) or None.
    """
    counts = counted_rows(target, row_weight, settings.ignore_index)
    rows = PlainRows(settings, logits, counts)
    result = rows.losses(rows.masses(target, class_weight))
    return result if row_weight is None else torch.where(counts, result * row_weight, 0.0)


def gradient(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    class_weight: Tensor | None,
    row_scale: Tensor,
) -> Tensor:
    """row_scale × ∂loss/∂logits, (N, C) in the logits' dtype, differentiable in logits and `row_scale`."""
    counts = counted_rows(target, row_scale, settings.ignore_index)
    rows = PlainRows(settings, logits, counts)
    g = rows.gradient(rows.masses(target, class_weight))
    return (g * row_scale.to(g.dtype)[:, None]).to(logits.dtype)


def gradient_products(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    class_weight: Tensor | None,
    row_scale: Tensor,
    direction: Tensor,
) -> tuple[Tensor, Tensor]:
    """What `gradient` hands back for an incoming gradient: the direction times its derivatives.

    Returns:
        (N,) direction · ∂loss/∂logits, the part of `row_scale`, and (N, C) row_scale × Hessian · direction, the part
        of the logits; both differentiable again.
    """
    # a row of scale 0 still has a derivative in its scale, so only ignored rows are left out
    rows = PlainRows(settings, logits, counted_rows(target, None, settings.ignore_index))
    masses = rows.masses(target, class_weight)
    v = direction.to(masses.dtype)
    scale_part = (rows.gradient(masses) * v).sum(dim=1)
    logits_part = rows.hessian_product(masses, v) * row_scale.to(v.dtype)[:, None]
    return scale_part.to(row_scale.dtype), logits_part.to(logits.dtype)


# Elements worked on at a time on devices without a kernel: temporaries stay small beside the logits themselves.
CHUNK_ELEMENTS = 2**24


def chunks(n_rows: int, n_classes: int, elements: int = CHUNK_ELEMENTS) -> list[slice]:
    """Slices of rows with about `elements` elements each; they depend on the shape alone."""
    step = max(1, elements // max(n_classes, 1))
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def part(target: TargetRows, rows: slice) -> TargetRows:
    """The targets of some of the rows."""
    return TargetRows(*(None if t is None else t[rows] for t in target))  # type: ignore[arg-type]
