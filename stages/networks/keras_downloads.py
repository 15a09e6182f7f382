"""What Keras downloads of itself, from the mirror where it is there, and a record of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from stages.common.command_line import UserError
from stages.common.files import sha256
from stages.networks.keras_quiet import keras
from stages.sources.mirror import find_in_mirror, mirror_remedy


@contextmanager
def keras_downloads() -> Iterator[list[dict[str, str]]]:
    """Record every file that Keras gets while the block runs, the mirror's in place of a download.

    Keras offers no hook for this, so its `get_file` is wrapped; what it checks it still checks.
    """
    downloads: list[dict[str, str]] = []
    get_file = keras.utils.get_file

    def get_from_mirror_or_network(fname: str, origin: str, **options: Any) -> str:
        path = find_in_mirror(fname)
        source = "keras" if path is None else "mirror"
        try:
            path = path or Path(get_file(fname, origin, **options))
        except Exception as error:
            raise UserError(
                f"{origin} could not be downloaded and checked ({error}); {mirror_remedy()}, "
                "or set weights to random"
            ) from error
        downloads.append({"source": source, "file": fname, "sha256": sha256(path)})
        return str(path)

    with mock.patch("keras.src.utils.file_utils.get_file", get_from_mirror_or_network):
        yield downloads
