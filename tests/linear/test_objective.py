import numpy as np
import pytest
from scipy import sparse

from kullback import BinaryCrossEntropy, CrossEntropy, get_num_threads, kernels, set_num_threads
from kullback.linear import design as design_module
from kullback.linear.blocks import block_map
from kullback.linear.design import as_design
from kullback.linear.objective import LinearObjective
from kullback.linear.problem import LinearProblem
from kullback.linear.scaling import column_scaling
from kullback.targets import ClassIndices, ClassRows, LabelRows

N, D, C = 60, 5, 4


def make(rng, loss, *, X=None, fit_intercept=True, weighted=True, penalty=0.02, soft=False, run=map):
    X = rng.normal(size=(N, D)) * [1, 10, 0.1, 1, 1] + [0, 3, 0, -1, 0] if X is None else X
    if loss.target_form == "labels":
        targets = LabelRows(rng.integers(0, 2, (N, C)))
    elif soft:
        targets = ClassRows(rng.dirichlet(np.ones(C), N))
    else:
        targets = ClassIndices(rng.integers(0, C, N))
    weight = rng.random(N) if weighted else None
    design = as_design(X)
    scaling = column_scaling(design, weight, penalty=penalty, curvature=0.2, fit_intercept=fit_intercept)
    total = float(N if weight is None else weight.sum())
    return LinearObjective(design, loss, targets, weight, C, total, penalty, fit_intercept, scaling, run)


LOSSES = [
    CrossEntropy(),
    CrossEntropy(class_weight=[1, 2, 0.5, 3], label_smoothing=0.1, temperature=2.0),
    BinaryCrossEntropy(label_reduction="sum", positive_weight=[1, 2, 3, 4]),
    BinaryCrossEntropy(label_smoothing=0.05),
]


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_gradient_and_hessian_by_differences(rng, loss, fit_intercept):
    problem = make(rng, loss, fit_intercept=fit_intercept)
    at = rng.normal(size=problem.size) * 0.5
    along = rng.normal(size=problem.size)
    step = 1e-5
    ahead, behind = problem.evaluate(at + step * along), problem.evaluate(at - step * along)
    slope = (ahead.objective - behind.objective) / (2 * step)
    assert problem.evaluate(at).gradient @ along == pytest.approx(slope, rel=1e-7)
    curvature = (ahead.gradient - behind.gradient) / (2 * step)
    np.testing.assert_allclose(problem.hessian_product(at, along), curvature, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_what_is_known_of_a_point_is_known_of_its_centred_parameters(rng, fit_intercept):
    objective = make(rng, CrossEntropy(temperature=2.0), fit_intercept=fit_intercept, penalty=0.3)
    problem = LinearProblem(objective, None, tol=1e300)
    at = rng.normal(size=objective.size)
    problem.check(at, problem.evaluate(at))
    passes = objective.passes
    moved = problem.centred(at)
    known = problem.certificate(moved)
    assert objective.passes == passes
    by_output = moved.reshape(-1, C)
    assert np.abs(by_output.sum(axis=1)).max() < 1e-14
    np.testing.assert_allclose(by_output - at.reshape(-1, C), (by_output - at.reshape(-1, C))[:, :1].repeat(C, axis=1))
    fresh = objective.evaluate(moved)
    assert known.primal == pytest.approx(fresh.objective, rel=1e-14)
    assert known.gradient_norm == pytest.approx(np.abs(fresh.gradient).max(), rel=1e-12)
    assert problem.centred(moved) is moved
    # A point that nothing is known of is not taken for known.
    other = problem.centred(at + 1.0 + np.arange(objective.size))
    assert problem.certificate(other).primal == pytest.approx(objective.evaluate(other).objective, rel=1e-14)


def test_value_by_hand(rng):
    problem = make(rng, CrossEntropy(), penalty=0.3)
    at = rng.normal(size=problem.size)
    weights, intercept = problem.scaling.to_raw(*problem.split(at))
    X, y, w = problem.design.matrix, problem.targets.indices, problem.sample_weight
    logits = X @ weights + intercept
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(w * log_p[np.arange(N), y]).sum() / w.sum()
    point = problem.evaluate(at)
    assert point.loss == pytest.approx(expected, rel=1e-12)
    assert point.objective == pytest.approx(expected + 0.15 * np.square(weights).sum(), rel=1e-12)
    np.testing.assert_array_equal(problem.join(*problem.split(at)), at)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_sparse_and_dense_agree(loss):
    X = np.random.default_rng(1).normal(size=(N, D))
    X[X < 0.3] = 0
    dense, csr = (make(np.random.default_rng(2), loss, X=matrix) for matrix in (X, sparse.csr_array(X)))
    at = np.random.default_rng(3).normal(size=dense.size)
    assert dense.evaluate(at).objective == pytest.approx(csr.evaluate(at).objective, rel=1e-12)
    np.testing.assert_allclose(dense.evaluate(at).gradient, csr.evaluate(at).gradient, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dense.hessian_product(at, at), csr.hessian_product(at, at), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("soft", [False, True])
def test_blocks_and_threads_change_nothing(monkeypatch, soft):
    whole = make(np.random.default_rng(2), CrossEntropy(), soft=soft)
    at = np.random.default_rng(3).normal(size=whole.size)
    expected = whole.evaluate(at)
    monkeypatch.setattr(design_module, "BLOCK_ROWS", (7, 7))
    before, found = get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            with block_map(9) as run:
                cut = make(np.random.default_rng(2), CrossEntropy(), soft=soft, run=run)
                assert len(cut._blocks) == 9
                found.append((cut.evaluate(at), cut.hessian_product(at, at)))
    finally:
        set_num_threads(before)
    assert expected.objective == pytest.approx(found[0][0].objective, rel=1e-12)
    np.testing.assert_allclose(expected.gradient, found[0][0].gradient, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(whole.hessian_product(at, at), found[0][1], rtol=1e-9, atol=1e-13)
    for point, product in found[1:]:
        assert point.objective == found[0][0].objective
        assert point.gradient.tobytes() == found[0][0].gradient.tobytes()
        assert product.tobytes() == found[0][1].tobytes()


def test_worker_threads_use_the_chosen_kernels():
    before = get_num_threads()
    try:
        set_num_threads(2)
        with kernels.using("reference"), block_map(4) as run:
            names = list(run(lambda _: kernels.active().__name__, range(4)))
    finally:
        set_num_threads(before)
    assert names == ["kullback.kernels.reference"] * 4


def test_float32_stays_close_to_float64():
    X = np.random.default_rng(1).normal(size=(N, D))
    double, single = (make(np.random.default_rng(2), CrossEntropy(), X=X.astype(t)) for t in (np.float64, np.float32))
    at = np.random.default_rng(3).normal(size=double.size)
    assert single.evaluate(at).objective == pytest.approx(double.evaluate(at).objective, rel=1e-6)
    np.testing.assert_allclose(single.evaluate(at).gradient, double.evaluate(at).gradient, atol=1e-6)
    assert single.evaluate(at).gradient.dtype == np.float64
