import os

import numpy as np
import pytest

from tests.tiny_set import Stages
from tools.duplicate_effect import (
    Features,
    Labels,
    compare_blocks,
    compare_groupings,
    judge,
    main,
    number_in_class,
)

LABELS = np.repeat(np.arange(3), 10)


def features_of(labels: Labels) -> Features:
    """Two views of one feature a class, which a probe cannot mistake."""
    return np.repeat(np.eye(3, dtype=np.float32)[labels][:, np.newaxis], 2, axis=1)


def test_a_probe_is_right_where_features_say_so_and_judges_no_image_that_trained() -> None:
    train = np.arange(30) % 10 < 7
    mislabelled = LABELS.copy()
    mislabelled[9] = 2
    right = judge(features_of(LABELS), mislabelled, train)
    assert np.flatnonzero(right).tolist() == [7, 8, 17, 18, 19, 27, 28, 29]


def test_probabilities_are_averaged_over_views() -> None:
    features = features_of(LABELS)
    features[9] = [[0.0, 0.6, 0.0], [5.0, 0.0, 0.0]]
    train = np.arange(30) % 10 < 7
    assert judge(features, LABELS, train)[9]
    features[9] = [[0.6, 0.0, 0.0], [0.0, 5.0, 0.0]]
    assert not judge(features, LABELS, train)[9]


def test_only_duplicates_that_a_probe_learns_by_heart_make_the_difference() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 1, 200)).astype(np.float32)
    features[30:] = features[:30]
    labels = np.tile(LABELS, 2)
    groups = np.tile(np.arange(1, 31), 2)
    groups[57:], groups[27:30] = [58, 59, 60], [28, 29, 30]
    features[57:] = rng.normal(size=(3, 1, 200))
    given, alone, together = compare_groupings(features, labels, groups, 0.5, range(5)).values()
    assert np.mean(given) > np.mean(alone) + 0.2
    assert np.mean(given) > np.mean(together) + 0.2


def test_images_are_numbered_within_their_class() -> None:
    assert number_in_class(np.array([1, 0, 1, 1, 0])).tolist() == [0, 0, 1, 2, 1]


def test_a_block_that_nothing_like_it_trains_is_not_recognised() -> None:
    last = np.arange(30) % 10 >= 7
    features = np.pad(features_of(LABELS), ((0, 0), (0, 0), (0, 3)))
    features[last] = np.roll(features[last], 3, axis=2)
    rows = compare_blocks(features, LABELS, 7, range(8))
    assert [row[:2] for row in rows] == [(1, 3), (2, 4), (3, 5), (5, 7), (6, 8), (8, 10)]
    assert rows[0][3] == 1
    assert rows[-1][2] > 0.8
    assert rows[-1][3] == pytest.approx(1 / 3)


def test_the_script_reads_what_the_stages_wrote(
    ran: Stages, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran.folder)
    before = sorted(os.walk(ran.folder))
    main(["--set", "tiny", "--backbone", "demo_backbone", "--seeds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == [
        "tiny, demo_backbone, logistic regression, 2 seeds from 42",
        "stratified",
    ]
    assert len(lines) == 1 + 3 + 1 + 6
    assert all(0 <= float(line.split()[-1]) <= 1 for line in lines[-6:])
    assert sorted(os.walk(ran.folder)) == before
