import numpy as np
import pytest
from scipy import sparse

from kullback import BinaryCrossEntropy, CrossEntropy, SoftmaxClassifier, SoftmaxPath
from kullback.linear.column_curvature import ColumnCurvature
from kullback.linear.curvature import Plan, SubsampledCurvature, draw_rows, pick_candidates, plan
from kullback.linear.design import DenseDesign, as_design
from kullback.linear.objective import LinearObjective
from kullback.linear.scaling import column_scaling
from kullback.linear.solvers.lbfgs import Curvature
from kullback.linear.whole_hessian import WholeHessian
from kullback.targets import ClassIndices, LabelRows

N, D, C = 400, 6, 4


def problem(loss, *, fit_intercept=True, rows=N, penalty=0.01):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, D)) * [1, 10, 0.1, 1, 3, 1] + [0, 3, 0, -1, 0, 5]
    targets = (
        LabelRows(rng.integers(0, 2, (rows, C)))
        if loss.target_form == "labels"
        else ClassIndices(rng.integers(0, C, rows))
    )
    weight = rng.random(rows) + 0.5
    design = as_design(X)
    scaling = column_scaling(design, weight, penalty=penalty, curvature=0.2, fit_intercept=fit_intercept)
    return LinearObjective(design, loss, targets, weight, C, weight.sum(), penalty, fit_intercept, scaling), design


def hessian(objective, at):
    return np.stack([objective.hessian_product(at, unit) for unit in np.eye(objective.size)])


def without_shifts(matrix):
    """A (P, P) matrix within the directions that do not shift all classes equally: the fit takes no others."""
    free = np.linalg.qr(np.eye(C)[:, 1:] - 1 / C)[0]
    basis = np.kron(np.eye(len(matrix) // C), free)
    return basis.T @ matrix @ basis


COUPLED = CrossEntropy(class_weight=[1, 2, 0.5, 3], label_smoothing=0.1, temperature=2.0)
SEPARATE = BinaryCrossEntropy(label_reduction="sum", positive_weight=[1, 2, 3, 4])


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", [COUPLED, SEPARATE], ids=str)
def test_all_rows_give_the_inverse_hessian(loss, fit_intercept):
    objective, design = problem(loss, fit_intercept=fit_intercept)
    how = Plan(leading=D + fit_intercept, rotated=False, sampled=N, candidates=N)
    at = np.random.default_rng(1).normal(size=objective.size) * 0.3
    curvature = SubsampledCurvature(objective, design, how, np.float64)
    if loss is COUPLED:
        # The fit never moves along equal shifts of all classes, where the estimate holds curvature of its own.
        at = (at.reshape(-1, C) - at.reshape(-1, C).mean(axis=1, keepdims=True)).ravel()
    gradient = objective.evaluate(at).gradient
    apply = curvature.inverse_at(at)
    np.testing.assert_allclose(hessian(objective, at) @ apply(gradient), gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loss", [COUPLED, SEPARATE], ids=str)
@pytest.mark.parametrize("leading", [2, 5])
def test_rotation_keeps_most_of_it(loss, leading):
    objective, design = problem(loss)
    how = Plan(leading=leading, rotated=True, sampled=N, candidates=N)
    at = np.random.default_rng(1).normal(size=objective.size) * 0.3
    apply = SubsampledCurvature(objective, design, how, np.float32).inverse_at(at)
    whole = hessian(objective, at)
    found = np.stack([apply(unit) for unit in np.eye(objective.size)], axis=1)
    np.testing.assert_allclose(found, found.T, atol=1e-4 * np.abs(found).max())
    if loss is COUPLED:
        found, whole = without_shifts(found), without_shifts(whole)
    values = np.linalg.eigvals(found @ whole).real
    assert values.min() > 0.3
    assert values.max() < 3.0


def test_sampled_rows_estimate_it():
    objective, design = problem(COUPLED, rows=20_000)
    at = np.random.default_rng(1).normal(size=objective.size)
    how = Plan(leading=D + 1, rotated=False, sampled=2000, candidates=8000)
    apply = SubsampledCurvature(objective, design, how, np.float32).inverse_at(at)
    gradient = objective.evaluate(at).gradient.reshape(-1, C)
    gradient = (gradient - gradient.mean(axis=1, keepdims=True)).ravel()
    exact = np.linalg.pinv(hessian(objective, at), rcond=1e-9) @ gradient
    found = apply(gradient)
    assert found @ exact > 0.97 * np.linalg.norm(found) * np.linalg.norm(exact)


def categories(rng, rows=3000):
    """Two full columns, one-hot columns of which some are rare, and hashed words, as CSR."""
    level = np.minimum(rng.geometric(0.08, rows) - 1, 59)
    parts = [
        sparse.csr_matrix(rng.normal(size=(rows, 2)) * [1, 50] + [0, 300]),
        sparse.csr_matrix((np.ones(rows), (np.arange(rows), level)), shape=(rows, 60)),
        sparse.random(rows, 40, 0.01, "csr", random_state=0),
    ]
    return sparse.hstack(parts, "csr")


@pytest.mark.parametrize(
    "loss", [CrossEntropy(label_smoothing=0.1), BinaryCrossEntropy(label_reduction="sum")], ids=str
)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_columns_of_sparse_data_keep_most_of_it(loss, fit_intercept):
    rng = np.random.default_rng(0)
    X = categories(rng)
    coupled = loss.target_form == "classes"
    targets = ClassIndices(rng.integers(0, C, 3000)) if coupled else LabelRows(rng.integers(0, 2, (3000, C)))
    design = as_design(X)
    scaling = column_scaling(design, None, penalty=0.001, curvature=0.2, fit_intercept=fit_intercept)
    objective = LinearObjective(design, loss, targets, None, C, 3000.0, 0.001, fit_intercept, scaling)
    how = Plan(leading=20, rotated=True, sampled=3000, candidates=3000)
    at = rng.normal(size=(objective.size // C, C)) * 0.2
    at = (at - at.mean(axis=1, keepdims=True)).ravel()
    apply = ColumnCurvature(objective, design, how, np.float64).inverse_at(at)
    whole = hessian(objective, at)
    found = np.stack([apply(unit) for unit in np.eye(objective.size)], axis=1)
    np.testing.assert_allclose(found, found.T, atol=1e-9 * np.abs(found).max())
    if coupled:
        found, whole = without_shifts(found), without_shifts(whole)
    values = np.linalg.eigvals(found @ whole).real
    assert values.min() > 0.3
    assert values.max() < 2.5


def moved(parameters, before, after):
    """The same weights and intercepts as parameters of another objective."""
    return after.join(*after.scaling.from_raw(*before.scaling.to_raw(*before.split(parameters))))


@pytest.fixture
def sums(monkeypatch):
    """How often a Hessian is summed over rows."""
    made, of_rows = [], WholeHessian.of_rows

    def counted(*args, **options):
        made.append(1)
        return of_rows(*args, **options)

    monkeypatch.setattr(WholeHessian, "of_rows", counted)
    return made


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", [COUPLED, SEPARATE], ids=str)
@pytest.mark.parametrize("penalty", [1e-4, 5.0])
def test_sums_over_rows_serve_another_penalty(loss, fit_intercept, penalty, sums):
    objective, design = problem(loss, fit_intercept=fit_intercept)
    other, _ = problem(loss, fit_intercept=fit_intercept, penalty=penalty)
    assert np.ptp(other.scaling.scale / objective.scaling.scale) > 1e-3
    how = Plan(leading=D + fit_intercept, rotated=False, sampled=N, candidates=N)
    at = np.random.default_rng(1).normal(size=(objective.size // C, C)) * 0.3
    at = (at - at.mean(axis=1, keepdims=True)).ravel()
    curvature = SubsampledCurvature(objective, design, how, np.float64, keep=True)
    first = curvature.inverse_at(at)
    assert curvature.inverse_at(at) is first
    curvature.under(other)
    there = moved(at, objective, other)
    apply = curvature.inverse_at(there)
    assert len(sums) == 1
    gradient = other.evaluate(there).gradient
    np.testing.assert_allclose(hessian(other, there) @ apply(gradient), gradient, rtol=1e-7, atol=1e-9)
    # Other probabilities have other sums.
    far = there * 8
    apply = curvature.inverse_at(far)
    assert len(sums) == 2
    gradient = other.evaluate(far).gradient
    np.testing.assert_allclose(hessian(other, far) @ apply(gradient), gradient, rtol=1e-6, atol=1e-8)


def test_turned_axes_serve_another_penalty(sums):
    objective, design = problem(COUPLED)
    other, _ = problem(COUPLED, penalty=1e-4)
    how = Plan(leading=3, rotated=True, sampled=N, candidates=N)
    at = np.random.default_rng(1).normal(size=objective.size) * 0.3
    curvature = SubsampledCurvature(objective, design, how, np.float64, keep=True)
    curvature.inverse_at(at)
    curvature.under(other)
    there = moved(at, objective, other)
    apply = curvature.inverse_at(there)
    assert len(sums) == 1
    found = without_shifts(np.stack([apply(unit) for unit in np.eye(other.size)], axis=1))
    values = np.linalg.eigvals(found @ without_shifts(hessian(other, there))).real
    assert values.min() > 0.3
    assert values.max() < 3.0


@pytest.mark.parametrize(
    "loss", [CrossEntropy(label_smoothing=0.1), BinaryCrossEntropy(label_reduction="sum")], ids=str
)
def test_sums_over_sparse_columns_serve_another_penalty(loss, sums):
    rng = np.random.default_rng(0)
    X = categories(rng)
    coupled = loss.target_form == "classes"
    targets = ClassIndices(rng.integers(0, C, 3000)) if coupled else LabelRows(rng.integers(0, 2, (3000, C)))
    design = as_design(X)
    both = []
    for penalty in (0.05, 0.001):
        scaling = column_scaling(design, None, penalty=penalty, curvature=0.2, fit_intercept=True)
        both.append(LinearObjective(design, loss, targets, None, C, 3000.0, penalty, True, scaling))
    objective, other = both
    how = Plan(leading=20, rotated=True, sampled=3000, candidates=3000)
    at = rng.normal(size=(objective.size // C, C)) * 0.2
    at = (at - at.mean(axis=1, keepdims=True)).ravel()
    curvature = ColumnCurvature(objective, design, how, np.float64, keep=True)
    curvature.inverse_at(at)
    curvature.under(other)
    there = moved(at, objective, other)
    apply = curvature.inverse_at(there)
    assert len(sums) == 1
    found = np.stack([apply(unit) for unit in np.eye(other.size)], axis=1)
    anew = ColumnCurvature(other, design, how, np.float64).inverse_at(there)
    wanted = np.stack([anew(unit) for unit in np.eye(other.size)], axis=1)
    if coupled:
        found, wanted = without_shifts(found), without_shifts(wanted)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9 * np.abs(wanted).max())


def test_a_fine_path_shares_its_sums(sums):
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    X, Cs = X[:600] / 16.0, np.logspace(-2, 1, 40)
    path = SoftmaxPath(Cs=Cs, tol=1e-6).fit(X, y[:600])
    shared = len(sums)
    assert path.converged_
    assert shared < 0.7 * len(Cs)
    for place in (0, 20, 39):
        alone = SoftmaxClassifier(C=Cs[place], tol=1e-6).fit(X, y[:600])
        assert path.certificates_[place].primal == pytest.approx(alone.certificate_.primal, rel=2e-6)
    assert len(sums) > shared  # each of these made its own


def test_an_estimate_that_is_there_already_costs_no_pairs():
    def halve(vector):
        return vector / 2

    curvature = Curvature(2, halve)
    curvature.learn(np.zeros(2), np.ones(2), np.zeros(2), np.array([3.0, 1.0]))
    known = curvature.direction(np.ones(2))
    curvature.renew(halve)
    assert curvature.learnt
    np.testing.assert_array_equal(curvature.direction(np.ones(2)), known)
    curvature.renew(lambda vector: vector / 2)
    assert not curvature.learnt


def test_sparse_fits_take_few_iterations():
    rng = np.random.default_rng(0)
    X = categories(rng, 5000).astype(np.float32)
    effect = rng.normal(size=(X.shape[1], 5)) / np.sqrt(np.asarray(X.multiply(X).mean(axis=0))).ravel()[:, None] ** 0.5
    y = (X @ effect + rng.gumbel(size=(5000, 5))).argmax(axis=1)
    quick, plain = (SoftmaxClassifier(C=10, solver=s).fit(X, y) for s in ("auto", "lbfgs"))
    assert quick.solver_ == "preconditioned"
    assert "columns" in quick.solver_reason_
    # 26 and 50; with other data 0.14 to 0.64 times as many
    assert quick.n_iter_ < 0.7 * plain.n_iter_
    assert quick.certificate_.primal == pytest.approx(plain.certificate_.primal, rel=2e-6)


def test_rare_classes_are_candidates_with_all_their_rows():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 50_000)
    y[[7, 30_000, 49_999]] = 3
    rows, share = pick_candidates(ClassIndices(y), 50_000, 1000)
    assert len(rows) == 1000
    assert (np.diff(rows) > 0).all()
    assert {7, 30_000, 49_999} <= set(rows)
    assert share.sum() == pytest.approx(50_000)


def test_draws_favour_curvature_and_stay_unbiased():
    rng = np.random.default_rng(0)
    curvature = rng.random((5000, 3)) ** 8 * [1, 1, 1e-5]
    picked, share = draw_rows(curvature, np.ones(5000), 500)
    assert 350 < len(picked) <= 510
    assert curvature[picked, 2].mean() > 1.5 * curvature[:, 2].mean()
    for k in range(3):
        assert share @ curvature[picked, k] == pytest.approx(curvature[:, k].sum(), rel=0.1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20_000, 17, 26), "whole"),
        ((10_000, 785, 10), "rotated"),
        ((200, 3000, 3), "none"),
        ((150, 5, 3), "whole"),
    ],
)
def test_plans_follow_the_costs(shape, expected):
    how = plan(*shape, coupled=True)
    kind = "none" if how is None else "rotated" if how.rotated else "whole"
    assert kind == expected
    if how is not None:
        assert how.sampled <= how.candidates <= shape[0]
        assert how.leading <= shape[1]


def test_it_saves_most_iterations():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 10)) @ rng.normal(size=(10, 10))
    y = (X @ rng.normal(size=(10, 5)) + 3 * rng.gumbel(size=(3000, 5))).argmax(axis=1)
    quick, plain = (SoftmaxClassifier(solver=s).fit(X, y) for s in ("preconditioned", "lbfgs"))
    assert (quick.solver_, plain.solver_) == ("preconditioned", "lbfgs")
    assert quick.n_iter_ < 0.5 * plain.n_iter_
    assert quick.certificate_.primal == pytest.approx(plain.certificate_.primal, rel=2e-6)


def test_precisions_are_chosen_by_the_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30_000, 8))
    y = rng.integers(0, 3, 30_000)
    reference = SoftmaxClassifier(tol=1e-11).fit(X, y)
    for matrix in (X + np.array([0, 0, 0, 1e6, 0, 0, 0, 0]), np.asfortranarray(X), X.astype(np.float32)):
        found = SoftmaxClassifier(tol=1e-11).fit(matrix, y)
        assert found.converged_
        np.testing.assert_allclose(found.coef_, reference.coef_, atol=1e-5)
    far = (X + np.array([0, 0, 0, 1e4, 0, 0, 0, 0])).astype(np.float32)
    exact = SoftmaxClassifier(tol=1e-9).fit(far.astype(np.float64), y)
    assert SoftmaxClassifier(tol=1e-9).fit(far, y).certificate_.primal == pytest.approx(
        exact.certificate_.primal, rel=1e-9
    )


def test_rows_are_cast_as_they_are_read():
    X = np.random.default_rng(0).normal(size=(50, 3))
    design = DenseDesign(X, np.float32)
    out = np.empty((50, 2), np.float32)
    design.rows(slice(0, 50)).forward(np.ones((3, 2), np.float32), out)
    np.testing.assert_allclose(out[:, 0], X.sum(axis=1), atol=1e-5)
    assert design.matrix is X


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_at_zero_one_factorisation_serves_all_classes(rotated, fit_intercept, weighted, sums):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D)) @ rng.normal(size=(D, D))
    design = as_design(X)
    weight = rng.random(N) if weighted else None
    scaling = column_scaling(design, weight, penalty=0.01, curvature=0.2, fit_intercept=fit_intercept)
    targets = ClassIndices(rng.integers(0, C, N))
    total = N if weight is None else weight.sum()
    objective = LinearObjective(design, CrossEntropy(), targets, weight, C, total, 0.01, fit_intercept, scaling)
    how = (
        Plan(leading=2, rotated=True, sampled=N, candidates=N) if rotated else Plan(D + fit_intercept, False, N, N, 1e9)
    )
    at = np.zeros(objective.size)
    gradient = objective.evaluate(at).gradient
    found = SubsampledCurvature(objective, design, how, np.float64).inverse_at(at)(gradient)
    # Turned axes leave out how the penalty, which is not the same along all columns, ties them together.
    tolerance = 2e-2 * np.abs(gradient).max() if rotated else 1e-9
    if not (rotated and weighted):
        assert not sums
        np.testing.assert_allclose(hessian(objective, at) @ found, gradient, rtol=1e-6, atol=tolerance)
    else:
        # Axes know nothing of the weights, so the Hessian is summed as anywhere else.
        assert sums
        assert found @ hessian(objective, at) @ found == pytest.approx(found @ gradient, rel=0.3)


def test_a_long_fit_ends_up_with_the_whole_hessian():
    objective, design = problem(COUPLED)
    how = Plan(leading=2, rotated=True, sampled=N, candidates=N, one_pass=1e6)
    at = np.random.default_rng(1).normal(size=(objective.size // C, C)) * 0.3
    at = (at - at.mean(axis=1, keepdims=True)).ravel()
    curvature = SubsampledCurvature(objective, design, how, np.float64)
    gradient = objective.evaluate(at).gradient
    objective.passes = 0
    part = curvature.inverse_at(at)(gradient)
    objective.passes = 100
    whole = curvature.inverse_at(at)(gradient)
    assert not np.allclose(hessian(objective, at) @ part, gradient, rtol=1e-3)
    np.testing.assert_allclose(hessian(objective, at) @ whole, gradient, rtol=1e-6, atol=1e-9)


def test_passes_of_earlier_fits_do_not_call_for_the_whole_hessian():
    first, design = problem(COUPLED)
    second, _ = problem(COUPLED)
    how = Plan(leading=2, rotated=True, sampled=N, candidates=N, one_pass=1e6)
    at = np.random.default_rng(1).normal(size=first.size) * 0.3
    gradient = first.evaluate(at).gradient
    first.passes = second.passes = 0
    curvature = SubsampledCurvature(first, design, how, np.float64, keep=True)
    part = curvature.inverse_at(at)(gradient)
    first.passes = 100
    curvature.under(second)
    np.testing.assert_allclose(curvature.inverse_at(at)(gradient), part, rtol=1e-9)
    second.passes = 100
    assert not np.allclose(curvature.inverse_at(at)(gradient), part, rtol=1e-3)


def test_raw_images_take_few_dozen_iterations():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    assert SoftmaxClassifier().fit(X, y).n_iter_ < 60
