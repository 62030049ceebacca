import numpy as np
import pytest

from kullback import BinaryCrossEntropy, ClassMixture, CrossEntropy
from kullback.errors import InputError, ShapeError, TargetError
from kullback.explain import account_sentence, gradient_account, untrained_account

MODULE = "kullback.explain.account"


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def brute_force(push, mass, weight):
    """The definition, class by class."""
    out = np.full((mass.shape[1], push.shape[1]), np.nan)
    for i in range(mass.shape[1]):
        w = mass[:, i] * weight
        if w.sum():
            out[i] = (w[:, None] * push).sum(axis=0) / w.sum()
    return out


@pytest.fixture
def problem(rng):
    logits = rng.normal(size=(200, 4)) * 3
    return logits, rng.integers(0, 4, 200)


def test_plain_cross_entropy_is_the_mean_of_y_minus_p(problem):
    logits, y = problem
    account = gradient_account(logits, y, CrossEntropy())
    push = np.eye(4)[y] - softmax(logits)
    np.testing.assert_allclose(account.push, brute_force(push, np.eye(4)[y], np.ones(200)), rtol=1e-10)
    np.testing.assert_allclose(account.overall, push.mean(axis=0), atol=1e-13)
    np.testing.assert_array_equal(account.counts, np.bincount(y, minlength=4))
    np.testing.assert_allclose(account.push.sum(axis=1), 0, atol=1e-13)


def test_untrained_model_in_closed_form():
    account = untrained_account([0, 0, 1, 2], CrossEntropy(), 3)
    np.testing.assert_allclose(account.push, np.eye(3) - 1 / 3, atol=1e-15)
    np.testing.assert_allclose(account.overall, np.array([2, 1, 1]) / 4 - 1 / 3, atol=1e-15)


def test_class_weights_and_smoothing_enter_through_the_loss():
    weight, eps = np.array([1.0, 2.0, 5.0]), 0.1
    account = untrained_account([0, 1, 2], CrossEntropy(class_weight=weight, label_smoothing=eps), 3)
    s = weight * ((1 - eps) * np.eye(3) + eps / 3)
    np.testing.assert_allclose(account.push, s - s.sum(axis=1, keepdims=True) / 3, rtol=1e-12)


def test_temperature_scales_the_push():
    plain = untrained_account([0, 1], CrossEntropy(), 2).push
    np.testing.assert_allclose(untrained_account([0, 1], CrossEntropy(temperature=2.0), 2).push, plain / 2)


def test_sample_weights_weigh_the_mean(problem, rng):
    logits, y = problem
    weight = rng.uniform(0, 3, 200)
    weight[:20] = 0
    account = gradient_account(logits, y, CrossEntropy(), sample_weight=weight)
    push = np.eye(4)[y] - softmax(logits)
    np.testing.assert_allclose(account.push, brute_force(push, np.eye(4)[y], weight), rtol=1e-10)
    np.testing.assert_allclose(account.overall, weight @ push / weight.sum(), atol=1e-13)
    np.testing.assert_array_equal(account.counts, np.bincount(y[20:], minlength=4))


def test_soft_rows_and_mixtures_share_out_their_push(problem, rng):
    logits, first = problem
    second, share = rng.integers(0, 4, 200), rng.uniform(size=200)
    rows = share[:, None] * np.eye(4)[first] + (1 - share)[:, None] * np.eye(4)[second]
    push = rows - softmax(logits)
    expected = brute_force(push, rows, np.ones(200))
    np.testing.assert_allclose(gradient_account(logits, rows, CrossEntropy()).push, expected, rtol=1e-9)
    mixed = gradient_account(logits, ClassMixture(first, second, share), CrossEntropy())
    np.testing.assert_allclose(mixed.push, expected, rtol=1e-9)
    np.testing.assert_allclose(mixed.counts, rows.sum(axis=0))


def test_labels_are_in_units_of_one_label(problem, rng):
    logits, _ = problem
    rows = rng.integers(0, 2, (200, 4))
    push = rows - 1 / (1 + np.exp(-logits))
    expected = brute_force(push, rows.astype(float), np.ones(200))
    for reduction in ("mean", "sum"):
        account = gradient_account(logits, rows, BinaryCrossEntropy(label_reduction=reduction))
        np.testing.assert_allclose(account.push, expected, rtol=1e-9)
        np.testing.assert_allclose(account.overall, push.mean(axis=0), atol=1e-13)
    assert account.kind == "labels"


def test_ignored_and_weightless_rows_leave_no_trace(problem):
    logits, y = problem
    expected = gradient_account(logits[10:], y[10:], CrossEntropy())
    dirty, labels = logits.copy(), y.copy()
    dirty[:10] = np.nan
    labels[:5] = -100
    labels[5:10] = 99  # out of range, but of weight 0
    weight = np.ones(200)
    weight[5:10] = 0
    account = gradient_account(dirty, labels, CrossEntropy(), sample_weight=weight)
    np.testing.assert_allclose(account.push, expected.push, rtol=1e-12)
    np.testing.assert_allclose(account.overall, expected.overall, atol=1e-14)
    np.testing.assert_array_equal(account.counts, expected.counts)


def test_a_class_without_examples_is_nan_and_disturbs_no_other():
    account = untrained_account([0, 2], CrossEntropy(), 3)
    assert np.isnan(account.push[1]).all()
    assert np.isfinite(account.push[[0, 2]]).all()


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_blocks_change_nothing(problem, rng, monkeypatch, kind):
    import sys

    logits, y = problem
    loss, targets = CrossEntropy(), y
    if kind == "labels":
        loss, targets = BinaryCrossEntropy(), rng.integers(0, 2, (200, 4))
    whole = gradient_account(logits, targets, loss)
    untrained = untrained_account(targets, loss, 4)
    monkeypatch.setattr(sys.modules[MODULE], "_BLOCK_ELEMENTS", 4 * 7)
    np.testing.assert_allclose(gradient_account(logits, targets, loss).push, whole.push, rtol=1e-12)
    np.testing.assert_allclose(untrained_account(targets, loss, 4).push, untrained.push, rtol=1e-12)


def test_float32_logits_are_taken_as_they_are(problem):
    logits, y = problem
    single = gradient_account(logits.astype(np.float32), y, CrossEntropy())
    np.testing.assert_allclose(single.push, gradient_account(logits, y, CrossEntropy()).push, atol=1e-6)


def test_an_error_in_a_later_block_names_the_row_of_the_whole_input(problem, monkeypatch):
    import sys

    logits, y = problem
    y = y.copy()
    y[150] = 7
    monkeypatch.setattr(sys.modules[MODULE], "_BLOCK_ELEMENTS", 4 * 20)
    with pytest.raises(TargetError, match="row 150: target 7"):
        gradient_account(logits, y, CrossEntropy())


def test_wrong_shapes_are_named(problem):
    logits, y = problem
    with pytest.raises(ShapeError, match=r"200 rows.*199 targets"):
        gradient_account(logits, y[1:], CrossEntropy())
    with pytest.raises(ShapeError, match=r"\(200,\)"):
        gradient_account(logits[:, 0], y, CrossEntropy())
    with pytest.raises(ShapeError, match=r"sample_weight has shape \(3,\)"):
        gradient_account(logits, y, CrossEntropy(), sample_weight=[1, 2, 3])
    with pytest.raises(InputError):
        gradient_account(logits, y, BinaryCrossEntropy())


class TestSentence:
    def test_its_figures_are_the_account_s(self):
        account = untrained_account([0, 1, 1, 2, 3], CrossEntropy(), 4)
        text = account_sentence(["a", "Adelie", "c", "d"], account)
        assert "“Adelie” pushes its own logit up by 0.750 and each other logit down by 0.250" in text
        assert "probability 1/4" in text

    def test_trained_part_speaks_of_the_class_with_most_left_to_do(self):
        logits = np.array([[9.0, 0, 0], [0, 9, 0], [0, 0.5, 0.7], [0, 0.1, 0.4]])
        y = [0, 1, 1, 2]
        trained = gradient_account(logits, y, CrossEntropy())
        text = account_sentence("xyz", untrained_account(y, CrossEntropy(), 3), trained)
        own = int(np.nanargmax(trained.counts * np.diagonal(trained.push)))
        assert f"“{'xyz'[own]}” pushes" in text
        assert f"up by {trained.push[own, own]:.3f} on average" in text

    def test_two_classes(self):
        text = account_sentence(["no", "yes"], untrained_account([0, 1], CrossEntropy(), 2))
        assert "the other logit down by 0.500" in text

    def test_unequal_pushes_are_given_as_a_range(self):
        loss = CrossEntropy(class_weight=[1, 2, 3], label_smoothing=0.3)
        text = account_sentence("abc", untrained_account([0, 0], loss, 3))
        row = untrained_account([0, 0], loss, 3).push[0]
        assert f"{abs(row[1]):.3f}" in text
        assert f"{abs(row[2]):.3f}" in text

    def test_labels(self):
        account = untrained_account([[1, 0, 1], [1, 0, 0]], BinaryCrossEntropy(), 3)
        text = account_sentence(["Drama", "War", "Music"], account)
        assert "holds “Drama” pushes that label's logit up by 0.500" in text
        assert "−0.500" in text

    def test_nothing_counts(self):
        account = untrained_account([-100, -100], CrossEntropy(), 2)
        assert "No example counts" in account_sentence(["a", "b"], account)

    def test_one_label(self):
        account = untrained_account([[1], [0]], BinaryCrossEntropy(), 1)
        assert "up by 0.500" in account_sentence(["spam"], account, account)
