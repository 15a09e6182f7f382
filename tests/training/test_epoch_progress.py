import gc
import re
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common import progress
from stages.networks.keras_quiet import keras
from stages.training import epoch_progress
from stages.training.checkpoints import Checkpoints
from stages.training.epoch_progress import EpochProgress
from stages.training.fit import fit
from tests.training.test_fit import data, network, recipe


def train(monkeypatch: pytest.MonkeyPatch, first: int = 0, **options: Any) -> None:
    """Three epochs of two steps, of which those before `first` are done; each takes ten seconds."""
    ticks = iter(np.arange(0, 1000, 10))
    monkeypatch.setattr(epoch_progress, "perf_counter", lambda: next(ticks))
    model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    values, targets = np.ones((8, 3), np.float32), np.eye(2, dtype=np.float32)[np.arange(8) % 2]
    model.fit(
        values, targets, batch_size=4, epochs=3, initial_epoch=first, verbose=0,
        callbacks=[EpochProgress()], **options | {"validation_data": (values, targets)},
    )  # fmt: skip


def test_each_epoch_is_a_line_with_scores_of_both_parts_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    score = r"\d+\.\d{4}"
    assert re.fullmatch(
        rf"epoch 1/3: accuracy {score}, loss {score}, val_accuracy {score}, val_loss {score}; "
        r"00:10, 00:20 left",
        lines[0],
    )
    # The mean of what has passed: 30 seconds of two epochs, with the ten between them.
    assert lines[1].endswith("; 00:10, 00:15 left")
    assert lines[2].endswith("; 00:10, 00:00 left")


def test_resumed_training_counts_from_where_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(monkeypatch, first=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 2/3", "epoch 3/3"]
    assert lines[0].endswith("; 00:10, 00:10 left")


def test_the_bar_counts_the_steps_that_are_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0)
    train(monkeypatch, first=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("training:   0%")
    assert "0/4" in lines[0]
    assert "4/4" in lines[-1]


def test_the_bar_of_a_training_that_fails_is_shown_before_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The error's line is to be the last one."""

    def full_disk(*_: Any) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(Checkpoints, "on_epoch_end", full_disk)
    values, labels, rows = data()
    with pytest.raises(OSError, match="No space") as caught:
        fit(network(), values, labels, (rows.final, rows.shown), recipe(), 0, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert " 5/20 " in lines[-1]
    del caught
    gc.collect()
    assert capsys.readouterr().err == ""
