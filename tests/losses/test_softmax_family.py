"""What each loss of the softmax family says about itself, checked numerically."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

import kullback.kernels as kernels
from kullback import ClassRows, CrossEntropy
from kullback.errors import InputError, NoProbabilitiesError, ShapeError
from kullback.losses import (
    BalancedSoftmax,
    Brier,
    Deviance,
    Focal,
    GeneralisedCrossEntropy,
    JensenShannon,
    Ldam,
    OneVsRest,
    Poly,
    SmoothedZeroOne,
    parse_loss,
)

W = (1.0, 2.0, 5.0, 0.5)
ELICIT = [
    CrossEntropy(priors=[8, 4, 2, 1]),
    CrossEntropy(priors=[8, 4, 2, 1], adjustment=0.5, class_weight=W, label_smoothing=0.1),
    CrossEntropy(z_loss=0.1),
    CrossEntropy(softcap=30),
    BalancedSoftmax(class_counts=[100, 10, 5, 50]),
    Focal(),
    Focal(gamma=0),
    Focal(gamma=0.5, class_weight=W),
    Focal(gamma=5, label_smoothing=0.1, temperature=2),
    GeneralisedCrossEntropy(),
    GeneralisedCrossEntropy(q=0.3, class_weight=W, label_smoothing=0.1),
    Poly(),
    Poly(epsilon=10, class_weight=W),
    Poly(epsilon=-1),
    JensenShannon(share=0.1, class_weight=W),
    JensenShannon(),
    JensenShannon(share=0.9, label_smoothing=0.1),
    Brier(),
    Brier(class_weight=W, label_smoothing=0.1),
    OneVsRest(),
    OneVsRest(class_weight=W, temperature=0.5),
    Ldam(temperature=1, max_margin=0),
    Ldam(temperature=1, max_margin=1, class_counts=[100, 10, 5, 50]),
    Ldam(temperature=0.5, max_margin=4, class_counts=[100, 10, 5, 50], class_weight=W),
    Deviance(),
]
DECIDE = [SmoothedZeroOne(), SmoothedZeroOne(class_weight=W, temperature=0.5), GeneralisedCrossEntropy(q=1)]
FLAT = [Focal(gamma=100), JensenShannon(share=0.99)]  # too flat for a general optimiser
ALL = [*ELICIT, *FLAT, *DECIDE]


@pytest.fixture(autouse=True)
def _reference():
    with kernels.using("reference"):
        yield


def lowest(loss, targets, starts=2):
    """The best of a general optimiser's runs from several starts: logits and value."""

    def objective(z):
        value, gradient = loss.value_and_gradient(z[None, :], targets, reduction="sum")
        return value, gradient[0]

    rng = np.random.default_rng(5)
    runs = [
        minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-10})
        for start in [np.zeros(4), *rng.normal(size=(starts - 1, 4)) * 2]
    ]
    best = min(runs, key=lambda run: run.fun)
    return best.x, best.fun


@pytest.mark.parametrize("loss", ELICIT, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_elicited_is_the_minimiser_and_recover_its_inverse(loss, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(4)) * 0.95 + 0.0125
    z, value = lowest(loss, ClassRows(p[None, :]))
    q = loss.probabilities(z[None, :])[0]
    np.testing.assert_allclose(q, loss.elicited(p), atol=2e-6)
    assert loss.floor(p[None, :], reduction="sum") == pytest.approx(value, abs=1e-9)
    if getattr(loss, "softcap", None) is None:  # a cap moves only what it clips
        assert loss.proper == np.allclose(q, p, atol=1e-4)
    best = loss.best_constant(p[None, :])
    assert loss(best[None, :], p[None, :], reduction="sum") == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(loss.recover(loss.elicited(p)), p, rtol=1e-7)
    np.testing.assert_allclose(loss.recover_log(np.log(loss.elicited([p]))), np.log([p]), atol=1e-7)


@pytest.mark.parametrize("loss", FLAT, ids=str)
def test_no_search_ends_below_the_floor_of_a_flat_loss(loss, rng):
    for p in (rng.dirichlet(np.ones(4)), np.array([0.97, 0.01, 0.01, 0.01])):
        floor = loss.floor(p[None, :], reduction="sum")
        assert loss([loss.best_constant(p[None, :])], p[None, :], reduction="sum") == pytest.approx(floor, rel=1e-9)
        assert floor <= lowest(loss, ClassRows(p[None, :]))[1] * (1 + 1e-9)
        np.testing.assert_allclose(loss.recover(loss.elicited(p)), p, rtol=1e-7)


@pytest.mark.parametrize("loss", [*ELICIT, *FLAT], ids=str)
def test_elicited_of_many_rows_and_of_certainties(loss, rng):
    p = np.vstack([rng.dirichlet(np.full(4, 0.3), 20), np.eye(4), [[0.5, 0.5, 0, 0]]])
    q = loss.elicited(p)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-12)
    for one, many in zip(p, q, strict=True):
        np.testing.assert_allclose(loss.elicited(one), many, atol=1e-9)
    if not loss.label_smoothing and not isinstance(loss, CrossEntropy):
        assert (np.isfinite(loss.elicited_log(p)) == (p > 0)).all()  # what q itself is may be below every float
    for k in range(4):
        wide = loss.elicited(np.eye(4)[k])
        if not loss.label_smoothing and getattr(loss, "softcap", None) is None:
            assert wide[k] == 1


@pytest.mark.parametrize("loss", DECIDE, ids=str)
def test_losses_that_only_decide_say_so(loss, rng):
    for method in (loss.elicited, loss.recover):
        with pytest.raises(NoProbabilitiesError, match=r"Train with CrossEntropy\(\)"):
            method([0.2, 0.3, 0.4, 0.1])
    with pytest.raises(NoProbabilitiesError):
        loss.recover_log(np.log([[0.2, 0.3, 0.4, 0.1]]))
    p = rng.dirichlet(np.ones(4))
    weighted = p * np.array(loss.class_weight or np.ones(4))
    floor = loss.floor(p[None, :], reduction="sum")
    assert floor == pytest.approx(weighted.sum() - weighted.max())
    assert loss.decide([loss.best_constant(p[None, :])])[0] == np.argmax(weighted)
    assert not loss.proper
    for _ in range(50):
        assert loss(rng.normal(size=(1, 4)) * 9, p[None, :], reduction="sum") >= floor - 1e-12


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_initial_value_is_the_loss_of_equal_logits(loss):
    balanced = np.arange(12) % 4
    assert loss.initial_value(4) == pytest.approx(loss(np.zeros((12, 4)), balanced))


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_claims_of_convexity_hold_both_ways(loss, rng):
    """A convex loss has no direction of negative curvature; of one that is not, a search finds some."""
    least = math.inf
    for _ in range(60):
        z, k = rng.normal(size=(1, 4)) * rng.choice([0.5, 3.0, 10.0]) * loss.temperature, rng.integers(4)
        z += rng.choice([0.0, -40.0])
        hessian = loss.hessian_product(np.repeat(z, 4, 0), np.full(4, k), np.eye(4), reduction="none")
        np.testing.assert_allclose(hessian, hessian.T, atol=1e-9 * max(1, np.abs(hessian).max()))
        np.testing.assert_allclose(
            np.diag(hessian), loss.hessian_diagonal(z, [k], reduction="none")[0], atol=1e-12 * max(1, hessian.max())
        )
        least = min(least, float(np.linalg.eigvalsh(hessian).min()))
    assert loss.convex == (least > -1e-9)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_ceiling_and_bounded_gradient(loss, rng):
    z = rng.normal(size=(400, 4)) * np.logspace(-1, 5, 400)[:, None]
    targets = rng.integers(0, 4, 400)
    values, gradient = loss.value_and_gradient(z, targets, reduction="none")
    assert (values <= loss.ceiling + 1e-12).all()
    assert (values >= 0).all()
    if math.isinf(loss.ceiling) and getattr(loss, "softcap", None) is None:
        assert values.max() > 1e3
    else:
        assert values.max() > 0.9 * min(loss.ceiling, 60)
    limit = 60 * max(loss.class_weight or (1,)) / loss.temperature
    assert loss.bounded_gradient == (np.abs(gradient).max() < limit)


def test_special_cases_are_their_neighbours(rng):
    z, y = rng.normal(size=(20, 4)) * 3, rng.integers(0, 4, 20)
    for same, other in (
        (Focal(gamma=0), CrossEntropy()),
        (Poly(epsilon=0), CrossEntropy()),
        (GeneralisedCrossEntropy(q=1), SmoothedZeroOne()),
        (Ldam(max_margin=0, temperature=1), CrossEntropy()),
        (BalancedSoftmax(class_counts=W), CrossEntropy(priors=W)),
        (BalancedSoftmax(), CrossEntropy()),
        (Deviance(class_weight=W), CrossEntropy(class_weight=W)),
    ):
        value, gradient = same.value_and_gradient(z, y)
        value_, gradient_ = other.value_and_gradient(z, y)
        assert value == pytest.approx(value_, rel=1e-14)
        np.testing.assert_allclose(gradient, gradient_, atol=1e-16)
    assert GeneralisedCrossEntropy(q=1e-8)(z, y) == pytest.approx(CrossEntropy()(z, y), rel=1e-6)
    # cross-entropy as a series: Poly changes its first coefficient
    p = CrossEntropy().probabilities(z)[np.arange(20), y]
    series = sum((1 - p) ** j / j for j in range(1, 2000)) + 3 * (1 - p)
    near = p > 0.05
    np.testing.assert_allclose(Poly(epsilon=3).per_example(z, y)[near], series[near], rtol=1e-12)


def test_one_vs_rest_tells_how_the_rest_is_spread():
    spread = np.log([[0.4, 0.2, 0.2, 0.2], [0.4, 0.3, 0.2, 0.1], [0.4, 0.58, 0.01, 0.01]])
    ce, full = CrossEntropy().per_example(spread, [0, 0, 0]), OneVsRest().per_example(spread, [0, 0, 0])
    np.testing.assert_allclose(ce, ce[0])
    assert full[0] < full[1] < full[2]
    p = np.exp(spread[2])
    assert full[2] == pytest.approx(-np.log(p[0]) - np.log(1 - p[1:]).sum())


def test_one_vs_rest_of_a_confident_mistake_is_finite():
    """log(1 − p) of a class that leads by 10 000 nats comes from the other classes, not from 1 − p."""
    value, gradient = OneVsRest().value_and_gradient([[0.0, 1e4, 3.0]], [0])
    assert value == pytest.approx(1e4 + (1e4 - 3 - math.log1p(math.exp(-3))))
    r = 1 / (1 + math.exp(-3))
    np.testing.assert_allclose(gradient[0], [-1 - (1 - r), 2, -r], rtol=1e-12)


def test_softcap_bounds_logits_and_keeps_masks():
    loss = CrossEntropy(softcap=5)
    assert loss([[1e9, 0.0]], [1]) == pytest.approx(5 + math.log1p(math.exp(-5)))
    p = loss.probabilities([[0.0, 0.0, -np.inf]])
    np.testing.assert_allclose(p, [[0.5, 0.5, 0]])
    assert loss.elicited([0.0, 1.0])[0] == pytest.approx(1 / (1 + math.exp(10)))
    assert loss.floor([1], n_classes=2) == pytest.approx(math.log1p(math.exp(-10)))
    assert np.isfinite(loss.best_constant([1], n_classes=2)).all()


def test_a_truth_beyond_the_softcap_is_reported_clipped():
    p = np.array([0.96, 0.03, 0.005, 0.005])
    for loss in (CrossEntropy(softcap=1), CrossEntropy(softcap=1, priors=[8, 4, 2, 1], temperature=0.5, z_loss=0.2)):
        z, value = lowest(loss, ClassRows(p[None, :]))
        np.testing.assert_allclose(loss.probabilities(z[None, :])[0], loss.elicited(p), atol=1e-4)
        assert loss.floor(p[None, :], reduction="sum") == pytest.approx(value, abs=1e-8)
        best = loss.best_constant(p[None, :])
        assert loss(best[None, :], p[None, :], reduction="sum") <= value + 1e-12
        assert loss.elicited(p)[0] < p[0]


def test_priors_undo_imbalance():
    loss = CrossEntropy(priors=[9, 1])
    assert str(loss) == "cross_entropy(priors=[9.0, 1.0])"
    best = loss.best_constant([0] * 9 + [1], n_classes=2)
    np.testing.assert_allclose(loss.probabilities(best[None, :]), [[0.5, 0.5]])
    np.testing.assert_allclose(loss.recover([0.5, 0.5]), [0.9, 0.1])


def test_leaf_values_are_those_of_gradient_boosting(rng):
    from sklearn.ensemble import GradientBoostingClassifier

    x, y = rng.normal(size=(200, 3)), rng.integers(0, 3, 200)
    model = GradientBoostingClassifier(n_estimators=1, learning_rate=1.0, max_depth=2, random_state=0).fit(x, y)
    start = np.tile(np.log(np.bincount(y) / len(y)), (200, 1))
    leaves = model.apply(x)[:, 0, :].astype(int)
    ours = Deviance().leaf_values(start, y, leaves)
    for k in range(3):
        theirs = model.estimators_[0, k].tree_.value[:, 0, 0]
        for leaf in np.unique(leaves[:, k]):
            assert ours[leaf, k] == pytest.approx(theirs[leaf], rel=1e-9)
    with pytest.raises(ShapeError, match="leaves have shape"):
        Deviance().leaf_values(start, y, leaves[:, :2])
    with pytest.raises(InputError, match="leaves are integers"):
        Deviance().leaf_values(start, y, -leaves)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_spelling_round_trip(loss):
    assert parse_loss(str(loss)) == loss


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focal(gamma=-1)", "between 0 and 100"),
        ("generalised_cross_entropy(q=0)", "above 0"),
        ("generalised_cross_entropy(q=1.5)", "between 0 and 1"),
        ("poly(epsilon=-2)", "at least -1"),
        ("cross_entropy(adjustment=2)", "give priors="),
        ("cross_entropy(priors=[1, 0])", r"priors\[1\] = 0"),
        ("cross_entropy(softcap=0)", "above 0"),
        ("cross_entropy(z_loss=-1)", "at least 0"),
        ("ldam(class_counts=[0, 1])", r"class_counts\[0\] = 0"),
        ("ldam(max_margin=-1)", "at least 0"),
    ],
)
def test_bad_settings_are_explained(text, message):
    with pytest.raises(InputError, match=message):
        parse_loss(text)


def test_class_settings_must_fit_the_logits():
    for loss in (CrossEntropy(priors=[1, 2]), BalancedSoftmax(class_counts=[1, 2]), Ldam(class_counts=[1, 2])):
        with pytest.raises(ShapeError, match="has 2 entries, the logits have 3 columns"):
            loss(np.zeros((1, 3)), [0])
