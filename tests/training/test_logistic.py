import io
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad, minimize
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits
from tqdm import tqdm

from stages.scoring.scores import log_loss
from stages.training import logistic
from stages.training.logistic import (
    choose_strength,
    fit_logistic,
    loss_and_gradient,
    predict_logistic,
    share_done,
)

Examples = tuple[NDArray[np.float32], NDArray[np.int64]]


def examples(classes: list[int], images: int = 60, views: int = 1, seed: int = 0) -> Examples:
    """Clusters that overlap: features (images, views, 3) and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=images)
    centres = np.random.default_rng(9).normal(size=(10, 1, 3))
    features = centres[labels] + rng.normal(size=(images, views, 3))
    return features.astype(np.float32), labels


def losses(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[Any]:
    """Of each row of scores (rows, classes): minus the logarithm of its softmax at its label."""
    own = scores[np.arange(len(labels)), labels]
    return np.asarray(np.log(np.exp(scores).sum(axis=1)) - own)


def minimiser(features: NDArray[Any], labels: NDArray[np.int64], strength: float) -> NDArray[Any]:
    """Probabilities by the weights that minimise the stated loss, found without scikit-learn."""
    rows, classes = features.reshape(-1, 3).astype(float), labels.max() + 1
    truth = np.repeat(labels, features.shape[1])

    def objective(flat: NDArray[Any]) -> float:
        kernel, bias = flat[: 3 * classes].reshape(3, classes), flat[3 * classes :]
        return float((kernel**2).sum() / 2 + strength * losses(rows @ kernel + bias, truth).sum())

    flat = minimize(objective, np.zeros(4 * classes), options={"gtol": 1e-6}).x
    kernel, bias = flat[: 3 * classes].reshape(3, classes), flat[3 * classes :]
    scores = np.exp(features @ kernel + bias)
    return np.asarray((scores / scores.sum(axis=2, keepdims=True)).mean(axis=1))


@pytest.mark.parametrize("views", [1, 2])
def test_weights_minimise_the_loss_that_is_stated(views: int) -> None:
    features, labels = examples([0, 1, 2], views=views)
    strengths = [0.01, 0.1, 1]
    for strength, weights in zip(
        strengths, fit_logistic(features, labels, strengths, 3), strict=True
    ):
        found = predict_logistic(features, weights)
        np.testing.assert_allclose(found, minimiser(features, labels, strength), atol=2e-3)
        assert [each.dtype for each in weights] == [np.float32] * 2
        assert [each.shape for each in weights] == [(3, 3), (3,)]


@pytest.mark.parametrize("classes", [2, 5])
def test_the_weights_are_those_of_scikit_learn(classes: int) -> None:
    """Of two classes scikit-learn penalises the difference of the weights: half of it is ours."""
    features, labels = examples([*range(classes)], images=200)
    (found,) = fit_logistic(features, labels, [0.2], classes)
    strength = 0.4 if classes == 2 else 0.2
    model = LogisticRegression(C=strength, tol=1e-5, max_iter=1000).fit(features[:, 0], labels)
    given = model.predict_proba(features[:, 0])
    np.testing.assert_allclose(predict_logistic(features, found), given, atol=2e-4)


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    rows, labels, weights = rng.normal(size=(9, 2)), rng.integers(3, size=9), rng.normal(size=9)

    def at(flat: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        loss, gradient = loss_and_gradient(flat.reshape(3, 3), rows, labels, 0.3)
        return loss, gradient.ravel()

    assert check_grad(lambda flat: at(flat)[0], lambda flat: at(flat)[1], weights) < 1e-6


@pytest.mark.parametrize("present", [[0, 2, 3], [1, 3]])
def test_a_class_without_an_image_is_ruled_out(present: list[int]) -> None:
    features, labels = examples(present)
    (weights,) = fit_logistic(features, labels, [1], 5)
    found = predict_logistic(features, weights)
    absent = [label for label in range(5) if label not in present]
    assert (found[:, absent] < 1e-30).all()
    (own,) = fit_logistic(features, np.searchsorted(present, labels), [1], len(present))
    np.testing.assert_allclose(found[:, present], predict_logistic(features, own), rtol=1e-5)


def test_predictions_average_the_views_by_hand() -> None:
    """Of two classes with weights 1 and 0: probabilities 1 / (1 + exp(-feature - 0.5))."""
    features = np.array([[[0], [1]], [[-2], [3]]], np.float32)
    weights = (np.array([[1, 0]], np.float32), np.array([0.5, 0], np.float32))
    found = predict_logistic(features, weights)
    np.testing.assert_allclose(found[:, 0], [0.720017, 0.576555], atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert found.shape == (2, 2)


def test_a_search_from_the_last_ones_end_finds_the_same() -> None:
    """Strengths after one another, warm, agree with each alone, cold."""
    features, labels = examples([0, 1, 2])
    warm = fit_logistic(features, labels, [0.01, 0.1, 1], 3)[-1]
    (cold,) = fit_logistic(features, labels, [1], 3)
    np.testing.assert_allclose(
        predict_logistic(features, warm), predict_logistic(features, cold), atol=2e-3
    )


@pytest.mark.parametrize("images", [12, 600])
def test_the_strength_of_the_lowest_held_out_loss_is_chosen(images: int) -> None:
    """Few images want a strong penalty, many a weak one."""
    choosing, judging = examples([0, 1, 2], images), examples([0, 1, 2], 500, seed=1)
    strengths = [10, 0.0001, 0.01]
    by_loss = {
        strength: log_loss(
            predict_logistic(judging[0], fit_logistic(*choosing, [strength], 3)[0]), judging[1]
        )
        for strength in strengths
    }
    wanted = min(by_loss, key=lambda strength: by_loss[strength])
    assert wanted == (0.01 if images == 12 else 10)
    assert choose_strength(choosing, judging, strengths, 3) == wanted


def test_what_is_held_out_is_not_learned_from() -> None:
    """Held out images of other labels than those learned from want the weakest weights."""
    choosing, (features, labels) = examples([0, 1, 2]), examples([0, 1, 2], seed=1)
    wrong = (features, (labels + 1) % 3)
    assert choose_strength(choosing, wrong, [0.001, 1], 3) == 0.001
    assert choose_strength(choosing, (features, labels), [0.001, 1], 3) == 1


def test_each_fit_says_which_it_is_and_how_long_it_took(
    capsys: pytest.CaptureFixture[str],
) -> None:
    features = np.random.default_rng(0).random((6, 2, 4)).astype(np.float32)
    fit_logistic(features, np.arange(6) % 3, [0.1, 1], 3)
    first, took, second, _ = capsys.readouterr().out.splitlines()
    assert first == "strength 0.1, 1 of 2: fitting 12 rows of 4 features, 3 classes"
    assert re.fullmatch(r"[1-9]\d* steps in \d+\.\d s", took)
    assert second.startswith("strength 1, 2 of 2")


def test_a_long_fit_shows_its_steps_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()

    def bar_at_once(**options: Any) -> Any:
        return tqdm(file=shown, mininterval=0, **options | {"delay": 0})

    monkeypatch.setattr(logistic, "progress_bar", bar_at_once)
    fit_logistic(*examples([0, 1, 2]), [1], 3)
    first, *_, last = shown.getvalue().strip().split("step ")[1:]
    assert first.startswith("1, at most 1000 [00:00<")
    assert int(last.partition(",")[0]) > 3
    bars = [float(share) for share in re.findall(r"strength 1: +(\d+)%", shown.getvalue())]
    assert bars == sorted(bars)
    assert bars[0] < 50 < bars[-1] == 100


@pytest.mark.parametrize(
    ("lowest", "share"), [(0.1, 0), (0.001, 0.5), (0.00001, 1), (0.0000001, 1)]
)
def test_how_far_a_search_is_goes_by_the_gradients_logarithm(lowest: float, share: float) -> None:
    assert share_done(0.1, lowest) == pytest.approx(share)
    assert share_done(0.000001, lowest) == 1


def test_of_one_strength_there_is_no_choice(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = (np.zeros((0, 1, 3), np.float32), np.zeros(0, int))
    assert choose_strength(nothing, nothing, [0.3], 3) == 0.3
    assert capsys.readouterr().out == ""


def test_linear_algebra_runs_in_one_thread_and_has_its_own_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def threads() -> list[int]:
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    seen, search = list[int](), minimize

    def watching(*given: Any, **options: Any) -> Any:
        seen.extend(threads())
        return search(*given, **options)

    monkeypatch.setattr(logistic, "minimize", watching)
    rng = np.random.default_rng(0)
    with threadpool_limits(2, "blas"):
        fit_logistic(rng.random((9, 1, 2), np.float32), np.arange(9) % 3, [1], 3)
        assert set(threads()) == {2}
    assert set(seen) == {1}
