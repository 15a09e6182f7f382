"""What training shows: how far it is, and each epoch's loss and accuracy."""

import sys
from time import perf_counter
from typing import Any

from stages.common.progress import progress_bar
from stages.networks.keras_quiet import keras


class EpochProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """A bar over all steps that are left, and a line on stdout for each epoch.

    Keras's own lines say neither how far an epoch is nor how long the rest will take.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bar: Any = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Start the clock and, before the first epoch, the bar."""
        self.start = perf_counter()
        if self.bar is None:
            steps = (self.params["epochs"] - epoch) * self.params["steps"]
            self.bar = progress_bar(total=steps, desc="training", unit=" steps")
            self.first, self.first_start = epoch, self.start

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        """Move the bar on."""
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Write the epoch's line: its scores, its time, and the rest's by the mean so far."""
        now, epochs = perf_counter(), self.params["epochs"]
        left = (now - self.first_start) / (epoch + 1 - self.first) * (epochs - epoch - 1)
        scores = [f"{name} {logs[name]:.4f}" for name in sorted(logs, key=_own_before_val)]
        took, rest = (self.bar.format_interval(seconds) for seconds in (now - self.start, left))
        line = f"epoch {epoch + 1}/{epochs}: {', '.join(scores)}; {took}, {rest} left"
        self.bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar, also after an error: left alone, it would be shown once more after it."""
        if self.bar is not None:
            self.bar.close()


def _own_before_val(name: str) -> tuple[bool, str]:
    return name.startswith("val_"), name
