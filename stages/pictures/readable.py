"""Which images of a set can be read: the survey stage's verdict, which the others follow."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.files import read_csv


def survey_path(set_name: str) -> Path:
    """Where the survey stage's table of a set is kept."""
    return Path(f"metrics/survey/{set_name}.csv")


def readable_rows(set_name: str) -> NDArray[np.int64]:
    """Rows, in the set's order, of the images that the survey could read, shape (n,)."""
    return np.flatnonzero([row["width"] != "" for row in read_csv(survey_path(set_name))])
