import numpy as np

from stages.scoring.tables import class_rows, gain_of_fine_tuning, prediction_rows, reliability_rows


def test_prediction_rows() -> None:
    probabilities = np.array([[0.7, 0.3], [0.9, 0.1]], np.float32)
    rows = prediction_rows(["a.jpg", "b.jpg"], np.array([0, 1]), probabilities, ["x", "y"])
    assert rows == [
        ["a.jpg", "x", "x", "0.700000", "0.700000"],
        ["b.jpg", "y", "x", "0.900000", "0.100000"],
    ]


def test_class_rows_leave_empty_what_is_undefined() -> None:
    truth = np.array([0, 0, 1])
    rows = class_rows(truth, np.array([0, 1, 1]), np.array([0, 0, 0]), ["x", "y", "z"])
    assert rows == [
        ["x", 2, "0.500000", "1.000000", "1.000000", "0.666667"],
        ["y", 1, "1.000000", "0.500000", "0.000000", ""],
        ["z", 0, "", "", "", ""],
    ]


def test_reliability_rows_have_the_bins_that_hold_an_image() -> None:
    probabilities = np.array([[0.7, 0.3], [0.72, 0.28], [0.05, 0.95]], np.float32)
    assert reliability_rows(probabilities, np.array([0, 1, 1])) == [
        ["0.710000", "0.500000", "2"],
        ["0.950000", "1.000000", "1"],
    ]


def test_the_gain_is_of_accuracy_and_may_be_a_loss() -> None:
    truth = np.zeros(10, int)
    head, finetuned = np.arange(10) < 3, np.arange(10) == 0
    assert gain_of_fine_tuning(head.astype(int), finetuned.astype(int), truth)["gain"] == 0.2
    assert gain_of_fine_tuning(finetuned.astype(int), head.astype(int), truth) == {
        "gain": -0.2, "only_head_right": 2, "only_finetuned_right": 0, "p_value": 0.5,
    }  # fmt: skip
