from collections.abc import Iterator

import numpy as np
import pytest
import sklearn.metrics
from numpy.typing import NDArray
from scipy.stats import binomtest

from stages.scoring.scores import (
    accuracy,
    all_scores,
    calibration_error,
    confusion,
    log_loss,
    mcnemar,
    mean_class_accuracy,
    mean_class_interval,
    precision,
    recall,
    reliability,
    top_accuracy,
    wilson_interval,
)

# Five images of three of four classes; predicted 0, 0, 1, 2, 1.
TRUTH = np.array([0, 1, 1, 2, 0])
PROBABILITIES = np.array(
    [
        [0.7, 0.1, 0.1, 0.1],
        [0.5, 0.3, 0.1, 0.1],
        [0.2, 0.6, 0.1, 0.1],
        [0.1, 0.2, 0.4, 0.3],
        [0.1, 0.8, 0.05, 0.05],
    ]
)
COUNTS = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    return np.eye(classes)[labels]


def random_results() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Probabilities of a middling classifier, and the truth, of 300 images of 7 classes."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = np.concatenate([np.arange(7), rng.integers(7, size=293)])
        scores = rng.normal(size=(300, 7)) + 1.5 * one_hot(truth, 7)
        shares = np.exp(scores)
        yield (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), truth


def test_accuracy() -> None:
    assert accuracy(PROBABILITIES, TRUTH) == 3 / 5


def test_accuracy_takes_the_first_of_equals() -> None:
    assert accuracy(np.full((4, 4), 0.25), np.arange(4)) == 1 / 4


def test_confusion_has_the_truth_in_rows() -> None:
    counts = confusion(np.array([1, 1, 2]), np.array([0, 1, 0]), 4)
    assert counts.tolist() == [[0, 1, 1, 0], [0, 1, 0, 0], [0] * 4, [0] * 4]
    assert confusion(PROBABILITIES.argmax(1), TRUTH, 4).tolist() == COUNTS


def test_recall_and_precision() -> None:
    counts = np.array([[3, 1, 0], [1, 4, 0], [0, 0, 0]])
    with np.errstate(all="raise"):  # Nothing is divided by 0 images.
        np.testing.assert_array_equal(recall(counts), [3 / 4, 4 / 5, np.nan])
    lopsided = np.array([[2, 2], [0, 3]])
    np.testing.assert_array_equal(recall(lopsided), [1 / 2, 1])
    np.testing.assert_array_equal(precision(lopsided), [1, 3 / 5])


def test_precision_of_a_class_never_predicted_is_nan_and_its_recall_0() -> None:
    counts = np.array([[0, 2], [0, 3]])
    np.testing.assert_array_equal(precision(counts), [np.nan, 3 / 5])
    np.testing.assert_array_equal(recall(counts), [0, 1])


def test_mean_class_accuracy_weighs_classes_alike_and_leaves_absent_ones_out() -> None:
    assert mean_class_accuracy(PROBABILITIES, TRUTH) == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    always_0 = np.tile([1.0, 0.0], (10, 1))
    truth = np.array([0] * 9 + [1])
    assert accuracy(always_0, truth) == 0.9
    assert mean_class_accuracy(always_0, truth) == 0.5


def test_top_accuracy() -> None:
    """The true class's places are 1, 2, 1, 1, 2."""
    assert top_accuracy(PROBABILITIES, TRUTH, 1) == 3 / 5
    assert top_accuracy(PROBABILITIES, TRUTH, 2) == 1
    order = np.array([[0.3, 0.25, 0.2, 0.15, 0.07, 0.03]])
    found = [top_accuracy(order, np.array([label])) for label in range(6)]
    assert found == [1, 1, 1, 1, 1, 0]


def test_ties_count_against_top_accuracy() -> None:
    tied = np.array([[0.4, 0.3, 0.3]])
    assert top_accuracy(tied, np.array([1]), 2) == 0
    assert top_accuracy(tied, np.array([2]), 2) == 0
    assert top_accuracy(tied, np.array([1]), 3) == 1
    assert top_accuracy(np.full((6, 6), 1 / 6), np.arange(6), 5) == 0


def test_log_loss() -> None:
    wanted = -np.log(0.7 * 0.3 * 0.6 * 0.4 * 0.1) / 5
    assert log_loss(PROBABILITIES, TRUTH) == pytest.approx(wanted)
    assert log_loss(np.full((3, 4), 0.25), np.array([0, 1, 2])) == pytest.approx(np.log(4))


def test_log_loss_of_a_certain_error_is_bounded() -> None:
    """The smallest step of float32 at 1 is 2 to the power of -23."""
    assert log_loss(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(23 * np.log(2))


def test_calibration_error_by_hand() -> None:
    """In two bins, (0, 0.5] and (0.5, 1].

    Confidences 0.4 (right) and 0.5 (wrong) have the mean 0.45 against an accuracy of 1/2; 0.7
    (right), 0.6 (right) and 0.8 (wrong) have 0.7 against 2/3. The error is 2/5 of 0.05 and 3/5 of
    0.0333, 0.04 in all.
    """
    assert calibration_error(PROBABILITIES, TRUTH, bins=2) == pytest.approx(0.04)


def test_reliability_by_hand() -> None:
    """The two bins of the test above; of ten bins, those without an image are left out."""
    each = reliability(PROBABILITIES, TRUTH, bins=2)
    assert each.confidence == pytest.approx([0.45, 0.7])
    assert each.accuracy == pytest.approx([1 / 2, 2 / 3])
    assert each.images.tolist() == [2, 3]
    assert reliability(PROBABILITIES, TRUTH, bins=10).images.tolist() == [1, 1, 1, 1, 1]


def test_there_are_fifteen_bins_unless_told() -> None:
    """0.55 and 0.59 lie in (8/15, 9/15], but on two sides of 9/16."""
    shares = np.array([[0.55, 0.45], [0.59, 0.41]])
    assert reliability(shares, np.array([0, 1])).images.tolist() == [2]
    error = calibration_error(shares, np.array([0, 1]))
    assert error == pytest.approx((0.55 + 0.59) / 2 - 1 / 2)


def test_a_probability_rounded_above_1_is_in_the_last_bin() -> None:
    shares = np.array([[1 + np.finfo(np.float32).eps, 0], [1, 0]], np.float32)
    assert reliability(shares, np.array([0, 0])).images.tolist() == [2]


def test_calibration_error_in_one_bin_is_confidence_against_accuracy() -> None:
    assert calibration_error(PROBABILITIES, TRUTH, bins=1) == pytest.approx(0.6 - 0.6, abs=1e-12)
    assert calibration_error(PROBABILITIES[:2], TRUTH[:2], bins=1) == pytest.approx(0.6 - 0.5)


def test_calibration_error_in_fifteen_bins_parts_what_one_would_cancel() -> None:
    """0.6 and wrong, 0.8 and right: gaps of 0.6 and 0.2 that do not make up for each other."""
    shares = np.array([[0.6, 0.4], [0.8, 0.2]])
    assert calibration_error(shares, np.array([1, 0])) == pytest.approx((0.6 + 0.2) / 2)
    assert calibration_error(shares, np.array([1, 0]), bins=1) == pytest.approx(0.2)


def test_a_bins_upper_bound_belongs_to_it() -> None:
    """0.5 and right lies in (0, 0.5], apart from 0.6 and wrong: gaps of 0.5 and 0.6."""
    shares = np.array([[0.5, 0.5], [0.6, 0.4]])
    assert calibration_error(shares, np.array([0, 1]), bins=2) == pytest.approx((0.5 + 0.6) / 2)


def test_the_wilson_interval_by_hand() -> None:
    """With z = 1.96: the centre is (8 + z²/2) / (10 + z²), half z sqrt(1.6 + z²/4) / (10 + z²).

    They are 0.71674 and 0.22658. Of 0 of 10 the upper bound is z² / (10 + z²).
    """
    assert wilson_interval(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert wilson_interval(0, 10) == pytest.approx((0, 3.841459 / 13.841459), abs=1e-6)
    low, high = wilson_interval(8, 10, confidence=0.9)
    assert 0.49016 < low < high < 0.94332


@pytest.mark.parametrize("images", range(1, 30))
def test_the_wilson_interval_ends_exactly_at_0_and_1(images: int) -> None:
    """Where rounding would leave a bound that is 1e-17 below 0 or above 1."""
    assert wilson_interval(0, images)[0] == 0
    assert wilson_interval(images, images)[1] == 1
    low, high = wilson_interval(1, images + 1)
    assert 0 < low < high < 1


def test_the_mean_class_interval_by_hand() -> None:
    """Six images, half right: none is right in 1/64 of the resamples, fewer than 2.5 %.

    At most one is right in 7/64, so the bounds are 1/6 and 5/6. A second class that is all right
    halves the distance to 1, and one without images counts for nothing.
    """
    assert mean_class_interval(np.array([[3, 3], [0, 0]])) == (1 / 6, 5 / 6)
    both = mean_class_interval(np.array([[3, 3, 0], [0, 50, 0], [0, 0, 0]]))
    assert both == pytest.approx(((1 / 6 + 1) / 2, (5 / 6 + 1) / 2))
    assert mean_class_interval(np.diag([4, 9])) == (1, 1)


def test_the_mean_class_interval_of_many_images_is_the_normal_one() -> None:
    """Recalls 0.9 and 0.5 of 1,000 images each: sqrt(0.09 + 0.25) / sqrt(1000) / 2 = 0.00922."""
    interval = mean_class_interval(np.array([[900, 100], [500, 500]]))
    assert interval == pytest.approx((0.7 - 1.96 * 0.00922, 0.7 + 1.96 * 0.00922), abs=0.001)


def test_the_mean_class_interval_is_the_same_each_time() -> None:
    counts = np.array([[9_000, 1_000], [5_000, 5_000]])
    assert mean_class_interval(counts) == mean_class_interval(counts)


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [(1, 8, 2 * (1 + 9) / 2**9), (8, 1, 2 * (1 + 9) / 2**9), (3, 3, 1), (0, 1, 1), (0, 0, 1)],
)
def test_mcnemar_by_hand(first: int, second: int, p_value: float) -> None:
    """Of nine images at most one falls to the first in (1 + 9) of 2**9 cases, on either side."""
    first_right = np.array([True] * first + [False] * second + [True] * 20 + [False] * 5)
    second_right = np.array([False] * first + [True] * second + [True] * 20 + [False] * 5)
    assert mcnemar(first_right, second_right) == pytest.approx((first, second, p_value))


def test_a_perfect_classifier() -> None:
    truth = np.array([0, 1, 2, 3, 4, 5, 5])
    assert all_scores(one_hot(truth, 6), truth) == {
        "accuracy": 1,
        "accuracy_low": round(wilson_interval(7, 7)[0], 6),
        "accuracy_high": 1,
        "mean_class_accuracy": 1,
        "mean_class_accuracy_low": 1,
        "mean_class_accuracy_high": 1,
        "top5_accuracy": 1,
        "log_loss": 0,
        "calibration_error": 0,
    }


def test_the_worst_classifier() -> None:
    """Sure of a wrong class. Zeros tie in sixth place or below, which is no top five."""
    truth = np.array([0, 1, 2, 3, 4, 5])
    assert all_scores(one_hot((truth + 1) % 6, 6), truth) == pytest.approx(
        {
            "accuracy": 0,
            "accuracy_low": 0,
            "accuracy_high": wilson_interval(0, 6)[1],
            "mean_class_accuracy": 0,
            "mean_class_accuracy_low": 0,
            "mean_class_accuracy_high": 0,
            "top5_accuracy": 0,
            "log_loss": 23 * np.log(2),
            "calibration_error": 1,
        }
    )


def test_the_accuracies_lie_within_their_intervals() -> None:
    for shares, truth in random_results():
        scores = all_scores(shares, truth)
        for name in ("accuracy", "mean_class_accuracy"):
            assert scores[f"{name}_low"] < scores[name] < scores[f"{name}_high"]


def test_scores_are_plain_numbers_of_six_digits() -> None:
    for shares, truth in random_results():
        scores = all_scores(shares, truth)
        assert scores["log_loss"] == round(log_loss(shares, truth), 6)
        assert all(type(score) is float for score in scores.values())
        assert scores == {name: round(score, 6) for name, score in scores.items()}


def test_scores_are_those_of_scikit_learn() -> None:
    for shares, truth in random_results():
        predicted = shares.argmax(axis=1)
        counts = confusion(predicted, truth, 7)
        np.testing.assert_array_equal(counts, sklearn.metrics.confusion_matrix(truth, predicted))
        np.testing.assert_allclose(
            recall(counts), sklearn.metrics.recall_score(truth, predicted, average=None)
        )
        np.testing.assert_allclose(
            precision(counts), sklearn.metrics.precision_score(truth, predicted, average=None)
        )
        found = [
            accuracy(shares, truth),
            mean_class_accuracy(shares, truth),
            top_accuracy(shares, truth, 5),
            top_accuracy(shares, truth, 2),
            log_loss(shares, truth),
        ]
        wanted = [
            sklearn.metrics.accuracy_score(truth, predicted),
            sklearn.metrics.balanced_accuracy_score(truth, predicted),
            sklearn.metrics.top_k_accuracy_score(truth, shares, k=5),
            sklearn.metrics.top_k_accuracy_score(truth, shares, k=2),
            sklearn.metrics.log_loss(truth, shares),
        ]
        assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 5), (4, 4), (12, 30), (0, 60), (99, 70)])
def test_interval_and_test_are_those_of_scipy(first: int, second: int) -> None:
    images = first + second
    expected = binomtest(first, images)
    interval = expected.proportion_ci(0.95, method="wilson")
    assert wilson_interval(first, images) == pytest.approx((interval.low, interval.high), rel=1e-12)
    only_first = np.arange(images) < first
    found = mcnemar(only_first, ~only_first).p_value
    assert round(found, 6) == round(float(expected.pvalue), 6)


def test_mcnemar_of_many_images_is_finite_and_fast() -> None:
    only_first = np.arange(100_000) < 49_800
    assert mcnemar(only_first, ~only_first).p_value == pytest.approx(0.2067, abs=1e-3)
