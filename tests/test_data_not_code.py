"""Files that the stages read are data: whatever is in them, reading one runs no code from it.

Every attempt here would make the file `ran` if it worked.
"""

import io
import json
import os
import pickle
import subprocess
import sys
import tokenize
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.networks.keras_quiet import keras
from stages.networks.model_files import load_model, save_model
from stages.training.checkpoints import Checkpoints
from tests.tiny_set import ROOT, Stages


class Touch:
    """What unpickles by making a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that must not come to be; that it would is tried first."""
    path = tmp_path / "ran"
    pickle.loads(pickle.dumps(Touch(path)))
    assert path.exists()
    path.unlink()
    return path


def write_model(path: Path, change: Callable[[Any], Any]) -> None:
    """A model file whose configuration is what `change` makes of a sound one."""
    save_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = json.dumps(change(json.loads(parts["config.json"]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def described(module: str | None, name: str, config: Any, registered: str | None = None) -> Any:
    """An object as Keras's configurations describe it."""
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


def function(module: str, name: str) -> Any:
    return described(module, "function", name, "function")


def dense(**config: Any) -> Any:
    return described("keras.layers", "Dense", {"units": 2, "name": "dense"} | config)


TOUCH = "touch ran"
OBJECTS = {
    "os.system": described("os", "system", {"command": TOUCH}),
    "os.system, registered": described("os", "system", {"command": TOUCH}, "system"),
    "subprocess.Popen": described("subprocess", "Popen", {"args": TOUCH, "shell": True}),
    "subprocess.run": function("subprocess", "run"),
    "eval": described("builtins", "eval", {"source": "open('ran', 'w')"}),
    "exec": function("builtins", "exec"),
    "a module that is there": described("evil", "Layer", {}),
    "a function that is there": function("evil", "run"),
    "a module of this project": described("stages.common.files", "write_json", {"path": "ran"}),
    "numpy.load": described("numpy", "load", {"file": "pickled.npy", "allow_pickle": True}),
    "pickle.load": function("pickle", "load"),
    "what allows code": described("keras.config", "enable_unsafe_deserialization", {}),
    "what allows code, inside": function("keras.config", "enable_unsafe_deserialization"),
    "another load_model": described(
        "keras.saving", "load_model", {"filepath": "lambda.keras", "safe_mode": False}
    ),
    "a download": described("keras.utils", "get_file", {"fname": "ran", "origin": "file:///x"}),
    "a download, inside": described(
        "keras.src.utils.file_utils", "get_file", {"fname": "ran", "origin": "file:///etc/hostname"}
    ),
    "Lambda, bytecode": described(
        "keras.layers",
        "Lambda",
        {"function": {"class_name": "__lambda__", "config": {"code": "4wAAAAA="}}},
    ),
    "Lambda, os.system": described(
        "keras.layers",
        "Lambda",
        {"function": function("os", "system"), "arguments": {"command": TOUCH}},
    ),
    "Lambda, exec": described("keras.layers", "Lambda", {"function": function("builtins", "exec")}),
    "another format's file": described("keras.layers", "TFSMLayer", {"filepath": "saved"}),
    "PyTorch's pickles": described("keras.layers", "TorchModuleWrapper", {"module": "pickled"}),
    "a file of words": described("keras.layers", "StringLookup", {"vocabulary": "/etc/hostname"}),
    "activation": dense(activation=function("os", "system")),
    "initializer": dense(kernel_initializer=described("evil", "Layer", {})),
    "regularizer": dense(kernel_regularizer=function("evil", "run")),
    "constraint": dense(bias_constraint=described("subprocess", "Popen", {"args": TOUCH})),
    "dtype": dense(dtype=described("evil", "Layer", {})),
}


@pytest.mark.parametrize("where", ["in place of a layer", "in place of the model", "compiled"])
@pytest.mark.parametrize("what", OBJECTS)
def test_a_model_file_that_names_code_runs_none(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, what: str, where: str
) -> None:
    """It is refused in one line; where it names code for training alone, that is not looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    np.save(tmp_path / "pickled.npy", np.array([Touch(marker)]), allow_pickle=True)

    def change(config: Any) -> Any:
        if where == "in place of the model":
            return OBJECTS[what]
        if where == "compiled":
            config["compile_config"] = {"optimizer": OBJECTS[what], "loss": OBJECTS[what]}
        else:
            config["config"]["layers"][1] = OBJECTS[what]
        return config

    write_model(tmp_path / "head.keras", change)
    if where == "compiled":
        load_model(tmp_path / "head.keras")
    else:
        with pytest.raises(UserError, match=r"head\.keras is not a model") as caught:
            load_model(tmp_path / "head.keras")
        assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert "evil" not in sys.modules


def lambda_that_opens(path: Path) -> keras.layers.Layer:
    """A layer that makes a file whenever it is called."""
    name, flags = str(path), os.O_CREAT
    layer = keras.layers.Lambda(
        lambda values: values * float(os.open(name, flags) > 0), output_shape=(2,)
    )
    layer(np.ones((1, 2)))
    assert path.exists()
    return layer


def test_a_lambda_as_keras_saves_it_is_refused(tmp_path: Path, marker: Path) -> None:
    layer = lambda_that_opens(marker)
    keras.Sequential([keras.Input((2,)), layer]).save(tmp_path / "head.keras")
    marker.unlink(missing_ok=True)
    with pytest.raises(UserError, match="Lambda"):
        load_model(tmp_path / "head.keras")
    assert not marker.exists()


def test_a_layer_is_no_model(tmp_path: Path) -> None:
    write_model(tmp_path / "head.keras", lambda _: dense())
    with pytest.raises(UserError, match=r"head\.keras is not a model .*a Dense layer"):
        load_model(tmp_path / "head.keras")


def repack(path: Path, without: str, **parts: bytes) -> None:
    """Leave a member of a zip archive out and put others in, `__` for `/` in their names."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != without}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (kept | parts).items():
            archive.writestr(name.replace("__", "/"), data)


def test_weights_that_are_pickled_are_refused(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "head.keras"
    write_model(path, lambda config: config)
    np.savez(tmp_path / "weights.npz", __root__=np.array([Touch(marker)], object))
    weights = (tmp_path / "weights.npz").read_bytes()
    repack(path, "model.weights.h5", **{"model.weights.npz": weights})
    with pytest.raises(UserError, match=r"head\.keras is not a model"):
        load_model(path)
    assert not marker.exists()


def test_nothing_of_a_model_file_is_unpacked_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "inside/head.keras"
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    write_model(path, lambda config: config)
    absolute = str(tmp_path / "ran").replace("/", "__")
    repack(path, "", **{"..__ran": b"x", "assets__..__..__ran": b"x", absolute: b"x"})
    with suppress(UserError):
        load_model(path)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["inside", "head.keras"]


def test_a_model_of_the_old_format_under_the_new_name_is_refused(
    tmp_path: Path, marker: Path
) -> None:
    """HDF5, whose loader would not heed safe_mode in every version of Keras."""
    layer = lambda_that_opens(marker)
    keras.Sequential([keras.Input((2,)), layer]).save(tmp_path / "model.h5")
    (tmp_path / "model.h5").rename(tmp_path / "head.keras")
    marker.unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"head\.keras is not a model"):
        load_model(tmp_path / "head.keras")
    assert not marker.exists()


ARRAYS = {
    "data/features/tiny/demo_backbone.npy": Stages.run_head,
    "data/prefix/tiny/demo_backbone/values.npy": Stages.run_finetune,
    "models/tiny/demo_backbone/head_weights.npy": Stages.run_finetune,
    "models/tiny/demo_backbone/head_probabilities.npy": Stages.run_evaluate,
    "models/tiny/demo_backbone/finetuned_probabilities.npy": Stages.run_evaluate,
    "data/kept/features/tiny/demo_backbone/values.npy": Stages.run_features,
    "data/kept/features/tiny/demo_backbone/done.npy": Stages.run_features,
}
"""Every array that a stage reads, and the stage."""


@pytest.mark.parametrize("kind", ["objects", "a pickle", "cut off", "empty", "no array"])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_none_is_one_line(
    stages: Stages, marker: Path, name: str, kind: str
) -> None:
    path = stages.folder / name
    if kind == "objects":
        np.save(path, np.array([[[Touch(marker)]]], object), allow_pickle=True)
    else:
        whole = path.read_bytes()
        other = {"a pickle": pickle.dumps(Touch(marker)), "empty": b"", "no array": b"<html>"}
        path.write_bytes(other.get(kind, whole[: len(whole) // 2]))
    with pytest.raises(UserError, match=r"\.npy is no array of numbers .*`dvc repro") as caught:
        ARRAYS[name](stages)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_every_array_that_a_stage_reads_is_in_this_list() -> None:
    """As no stage reads one but by `read_array`."""
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "stages").rglob("*.py")
        if "np.load(" in path.read_text("utf-8")
    }
    assert readers == {"stages/common/arrays.py", "stages/training/checkpoints.py"}
    text = "".join(path.read_text("utf-8") for path in (ROOT / "stages").rglob("*.py"))
    names = {token.string for token in tokenize.generate_tokens(io.StringIO(text).readline)}
    assert "read_array" in names
    assert not names & {"pickle", "marshal", "shelve", "dill", "joblib", "eval", "exec"}
    assert text.count("read_array(") == 1 + 6  # One of them reads two.


def test_a_checkpoint_of_pickles_runs_nothing(tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "states/000000"
    folder.mkdir(parents=True)
    np.savez(folder / "state.npz", np.array([Touch(marker)], object))
    (folder / "history.json").write_text("{}")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="allow_pickle"):
        Checkpoints(folder.parent).restore(model)
    assert not marker.exists()


def test_a_file_of_weights_that_points_elsewhere_reads_nothing_there(tmp_path: Path) -> None:
    """HDF5 has links to other files; Keras does not follow them."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    path, other = tmp_path / "x.weights.h5", tmp_path / "secret.h5"
    model.save_weights(path)
    with h5py.File(other, "w") as file:
        file["values"] = np.full((2, 2), 7.0)
    with h5py.File(path, "a") as file:
        group = file["layers/dense/vars"]
        del group["0"]
        group["0"] = h5py.ExternalLink(str(other), "/values")
    with pytest.raises(ValueError, match=r"."):
        model.load_weights(path)


FUZZ_CASES = 300
FUZZ_MODEL = """
import sys
from pathlib import Path
import numpy as np
from stages.common.command_line import UserError
from stages.networks.model_files import load_model
path, rng = Path(sys.argv[1]), np.random.default_rng(0)
whole, counts = path.read_bytes(), [0, 0]
for case in range(int(sys.argv[2])):
    data = bytearray(whole)
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(len(data))] = rng.integers(256)
    path.write_bytes(data)
    try:
        load_model(path)
        counts[0] += 1
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
        counts[1] += 1
print(*counts)
"""


@pytest.mark.slow
def test_a_model_file_changed_at_random_is_a_model_or_one_line(tmp_path: Path) -> None:
    path = tmp_path / "head.keras"
    write_model(path, lambda config: config)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ_MODEL, str(path), str(FUZZ_CASES)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded, lines = map(int, done.stdout.split())
    assert loaded + lines == FUZZ_CASES
    assert lines > FUZZ_CASES / 10
