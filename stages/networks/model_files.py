"""Model files whose bytes depend on the model alone."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from stages.common.command_line import UserError, first_line
from stages.common.files import replacing
from stages.networks.hub_backbones import readable
from stages.networks.keras_quiet import keras


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file whose bytes depend on the model alone.

    Keras puts the date into metadata.json and into the archive's entries, and memory addresses
    into config.json as the identities of shared objects; here they are fixed or counted. What
    layers of KerasHub write and cannot read is left out.
    """
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary) as archive:
            parts = {name: archive.read(name) for name in sorted(archive.namelist())}
        metadata = json.loads(parts["metadata.json"]) | {"date_saved": "1980-01-01@00:00:00"}
        parts["metadata.json"] = json.dumps(metadata).encode()
        config = _number_shared_objects(json.loads(parts["config.json"], object_hook=_readable), {})
        parts["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, data in parts.items():
                archive.writestr(zipfile.ZipInfo(name), data)


def _readable(value: dict[str, Any]) -> dict[str, Any]:
    """An object of config.json; where it describes a layer, one that can be read."""
    if "class_name" in value and isinstance(value.get("config"), dict):
        value["config"] = readable(value["class_name"], value["config"])
    return value


def _number_shared_objects(value: Any, numbers: dict[int, int]) -> Any:
    if isinstance(value, list):
        return [_number_shared_objects(each, numbers) for each in value]
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(each, len(numbers))
            if key == "shared_object_id"
            else _number_shared_objects(each, numbers)
            for key, each in value.items()
        }
    return value


def load_model(path: Path) -> keras.Model:
    """Load a model file; it is data, and never runs code. Raises UserError when it cannot."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is damaged, or no file of Keras's")
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if not isinstance(model, keras.Model):
            raise ValueError(f"it is a {type(model).__name__} layer")
        return model
    except Exception as error:  # Keras raises whatever it stumbles on in a broken file.
        raise UserError(
            f"{path} is not a model that can be loaded ({first_line(error)}); `dvc repro` makes it"
        ) from error


def weights_file(network: keras.Model) -> bytes:
    """The content of the file that `network.save_weights` would write.

    It is made in memory, as HDF5 ends the process by a segmentation fault where the disk is full.
    """
    from keras.src.saving.saving_lib import H5IOStore, _save_state

    file = io.BytesIO()
    store = H5IOStore(file, mode="w")
    _save_state(network, store, None, inner_path="", visited_saveables=set())
    store.close()
    return file.getvalue()
