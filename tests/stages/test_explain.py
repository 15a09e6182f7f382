import numpy as np
import pytest
from PIL import Image

from stages.common.files import read_csv, read_json, write_csv
from stages.explain import coloured_where
from stages.networks.grad_cam import class_maps, has_places
from stages.networks.keras_quiet import keras
from stages.scoring.tables import PREDICTION_COLUMNS
from tests.tiny_set import Stages

FOLDER = "metrics/explain/tiny-demo_backbone"


def classifier(pooling: str, kernel: list[list[float]]) -> keras.Model:
    """Its feature map is the picture, its head a Dense layer of two classes."""
    layers = keras.layers
    image = keras.Input((2, 2, 3), name="image")
    backbone = keras.Model(image, layers.Activation("linear")(image), name="backbone")
    features = keras.Input((3,))
    dense = layers.Dense(2, activation="softmax", name="classes")
    head = keras.Model(features, dense(features), name="head")
    dense.set_weights([np.array(kernel), np.zeros(2)])
    pool = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}[pooling]
    picture = keras.Input((2, 2, 3))
    return keras.Model(picture, head(pool(name="pool")(backbone(picture))))


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_map_of_a_linear_head_by_hand(pooling: str) -> None:
    """The class's weights times the features of each place, without the negative ones."""
    pixels = [[[10, 0, 0], [20, 0, 10]], [[0, 30, 0], [0, 0, 40]]]
    images = np.array([pixels, pixels], np.uint8)
    network = classifier(pooling, [[2, 1], [-1, 3], [1, -1]])
    maps = class_maps(network, "backbone", images, np.array([0, 1]))
    # Class 0: 20, 50, -30, 40; class 1: 10, 10, 90, -40.
    assert maps.reshape(2, 4) == pytest.approx(
        np.array([[20 / 50, 1, 0, 40 / 50], [10 / 90, 10 / 90, 1, 0]])
    )


def test_nothing_that_speaks_for_a_class_gives_an_empty_map() -> None:
    images = np.full((1, 2, 2, 3), 9, np.uint8)
    network = classifier("avg", [[-1, 1], [-1, 1], [-1, 1]])
    assert class_maps(network, "backbone", images, np.array([0])).max() == 0


def test_what_speaks_for_a_class_keeps_its_colour() -> None:
    picture = np.full((4, 4, 3), (200, 0, 100), np.uint8)
    assert (coloured_where(picture, np.ones((2, 2), np.float32)) == picture).all()
    grey = coloured_where(picture, np.zeros((2, 2), np.float32))
    assert (grey == grey[0, 0, 0]).all()
    assert 0 < grey[0, 0, 0] < 100


def test_a_network_of_one_place_has_no_places() -> None:
    image = keras.Input((2, 2, 3))
    for size, expected in ((1, True), (2, False)):
        output = keras.layers.AveragePooling2D(size)(image)
        network = keras.Model(image, output, name="backbone")
        assert has_places(keras.Model(image, network(image)), "backbone") == expected


def test_mistakes_come_first_with_what_speaks_for_the_truth(stages: Stages) -> None:
    path = stages.folder / "metrics/predictions/tiny-demo_backbone-finetuned.csv"
    rows = [dict(row) for row in read_csv(path)]
    for number, row in enumerate(rows):
        others = [each for each in ("red", "green") if each != row["truth"]]
        row["prediction"] = others[0] if number == 3 else row["truth"]
    write_csv(path, PREDICTION_COLUMNS, [[*row.values()] for row in rows])
    stages.run_explain()
    facts = read_json(stages.folder / FOLDER / "facts.json")
    assert len(facts) == 1 + 4
    assert facts[0]["image"] == rows[3]["image"]
    assert facts[0]["files"] == ["0.jpg", "0_prediction.jpg", "0_truth.jpg"]
    assert all(len(each["files"]) == 2 for each in facts[1:])
    written = {path.name for path in (stages.folder / FOLDER).iterdir()}
    assert written == {"facts.json"}.union(*(each["files"] for each in facts))
    for name in written - {"facts.json"}:
        with Image.open(stages.folder / FOLDER / name) as picture:
            assert picture.size == (32, 32)


def test_a_second_run_gives_the_same_bytes(stages: Stages) -> None:
    def contents() -> dict[str, bytes]:
        stages.run_explain()
        return {path.name: path.read_bytes() for path in (stages.folder / FOLDER).iterdir()}

    assert contents() == contents()
