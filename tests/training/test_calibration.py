import numpy as np
import pytest
from numpy.typing import NDArray

from stages.scoring.scores import calibration_error
from stages.training.calibration import FEWEST, HIGHEST, choose_temperature, tempered


def sure_of(share: float, right: int, wrong: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities of two classes in one view, `share` for the first, and the true classes."""
    probabilities = np.tile(np.array([share, 1 - share], np.float32), (right + wrong, 1, 1))
    return probabilities, np.array([0] * right + [1] * wrong)


def test_two_views_are_tempered_and_then_averaged() -> None:
    probabilities = np.array([[[0.8, 0.2], [0.5, 0.5]]])
    # At half the temperature the odds of 4 are squared: 16 to 1.
    np.testing.assert_allclose(
        tempered(probabilities, 0.5), [[(16 / 17 + 0.5) / 2, 0.279412]], 1e-5
    )
    np.testing.assert_allclose(tempered(probabilities, 1.0), [[0.65, 0.35]])


@pytest.mark.parametrize(("share", "temperature"), [(0.6, 0.1919), (0.99, 2.1747)])
def test_the_share_that_is_right_becomes_the_probability(share: float, temperature: float) -> None:
    # 90 of 100 are right; each counts to 1/102 as the other class's: 0.9 + (0.1 - 0.9) / 102.
    wanted = 0.9 - 0.8 / 102
    found = choose_temperature(*sure_of(share, 90, 10))
    assert found == pytest.approx(temperature, rel=2e-3)
    log_odds = np.log(share / (1 - share)), np.log(wanted / (1 - wanted))
    assert found == pytest.approx(log_odds[0] / log_odds[1], rel=1e-3)


def test_where_all_are_right_it_does_not_become_certain() -> None:
    # 98 images, all right: one in a hundred may be wrong.
    probabilities, truth = sure_of(0.6, 98, 0)
    found = choose_temperature(probabilities, truth)
    assert tempered(probabilities, found)[0, 0] == pytest.approx(0.99, abs=1e-3)


def test_a_probability_of_nothing_for_the_true_class_is_borne() -> None:
    probabilities = np.tile(np.eye(3, dtype=np.float32)[:, np.newaxis], (FEWEST, 1, 1))
    truth = np.tile([0, 1, 1], FEWEST)
    found = choose_temperature(probabilities, truth)
    assert 1 < found < HIGHEST
    assert np.isfinite(np.log(tempered(probabilities, found)[np.arange(len(truth)), truth])).all()


@pytest.mark.parametrize(
    ("images", "calibrated"), [(1, False), (19, False), (20, True), (21, True)]
)
def test_few_images_choose_nothing(
    images: int, calibrated: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of which all but two are right, or the one."""
    right = max(images - 2, 1)
    found = choose_temperature(*sure_of(0.6, right, images - right))
    said = capsys.readouterr().out
    if calibrated:
        share = right / images
        wanted = share + (1 - 2 * share) / (images + 2)
        assert found == pytest.approx(np.log(1.5) / np.log(wanted / (1 - wanted)), rel=1e-3)
        assert f", by {images} images held out: loss" in said
    else:
        assert found == 1
        assert said == (
            f"temperature 1: not calibrated, as {images} images are held out, fewer than 20\n"
        )


@pytest.mark.parametrize(
    ("share", "right", "wrong", "bound"),
    [(0.9, 10, 50, "100"), (0.9, 30, 30, "100"), (0.5001, 60, 0, "0.01")],
)
def test_a_temperature_at_a_bound_is_not_taken(
    share: float, right: int, wrong: int, bound: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model worse than guessing, as good, and one whose scores are all but the same."""
    assert choose_temperature(*sure_of(share, right, wrong)) == 1
    assert f"60 images held out it would be {bound}, a bound" in capsys.readouterr().out


def test_a_calibrated_model_states_what_comes_true() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 1, 10)) * 3
    honest = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    truth = np.array([rng.choice(10, p=row[0]) for row in honest])
    timid = tempered(honest, 3.0)
    assert calibration_error(timid, truth) > 0.3
    found = choose_temperature(timid[:2000, np.newaxis], truth[:2000])
    assert found == pytest.approx(1 / 3, rel=0.1)
    after = tempered(timid[2000:, np.newaxis], found)
    assert calibration_error(after, truth[2000:]) < 0.05
    np.testing.assert_array_equal(after.argmax(axis=1), timid[2000:].argmax(axis=1))
