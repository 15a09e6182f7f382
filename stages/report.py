"""Write metrics/report/: one page of pictures, results, curves, confusions and predictions.

Reads params.yaml, what other stages wrote into metrics/, the tables in data/duplicates/ and
data/splits/, and pictures from the archives in data/raw/. The page opens without a server and
without a network. What stages took, from data/times/, goes into metrics/times.js beside the report,
which the page reads where it is there: so the report is the same whatever they took.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jinja2
import yaml
from PIL import Image

from stages.common.command_line import Parser, UserError, run
from stages.common.files import read_csv, read_json, replacing
from stages.common.progress import progress_bar
from stages.pictures.decoding import decode
from stages.pictures.reading import read_members
from stages.reporting.charts import (
    Chart,
    HeatMap,
    IntervalChart,
    ReliabilityDiagram,
    heat_map,
    interval_chart,
    line_chart,
    reliability_diagram,
)
from stages.reporting.duplicates import DuplicateGroup, parse_duplicates
from stages.reporting.inspection import (
    Explanation,
    Inspection,
    Survey,
    parse_explanations,
    parse_inspection,
    summarise_set,
)
from stages.reporting.tables import (
    MODELS,
    SCORES,
    ClassRow,
    Confusion,
    Prediction,
    Result,
    compare_models,
    compare_with_best,
    confident_mistakes,
    count_confusions,
    describe_comparison,
    find_confusions,
    find_reservations,
    flatten,
    group_parameters,
    group_reservations,
    most_uncertain,
    parse_classes,
    parse_predictions,
    parse_reliability,
    sample_classes,
    sample_right,
)
from stages.reporting.times import Use, as_script, parse_use, tabulate_times
from stages.sources.sets import find_set

PARAMETERS = (
    "dropout", "seed", "repeats", "refit", "class_weight", "sets", "own", "backbones", "fusions",
    "weights", "unreadable", "engine",
    "duplicates", "split", "features", "predict", "head", "finetune",
)  # fmt: skip
"""What params.yaml holds at its top level."""
PICTURE_SIDE, THUMB_SIDE = 240, 96
TEMPLATES = Path(__file__).parent / "reporting"


@dataclass(frozen=True)
class ModelView:
    """What the page shows of one model of a run."""

    title: str
    charts: list[tuple[str, Chart]]
    at_once: list[tuple[str, str, str]]
    """In place of charts, the score's name and its values on train and validation."""
    reliability: ReliabilityDiagram
    matrix: HeatMap
    confusions: list[Confusion]
    accuracy: tuple[float, float, float]
    """The figure, and the bounds of its interval."""


@dataclass(frozen=True)
class RunView:
    """What the page shows of one set and backbone."""

    set_name: str
    backbone: str
    results: list[Result]
    comparison: str
    reservations: list[tuple[str, str]]
    models: list[ModelView]
    class_rows: list[ClassRow]
    predictions: list[Prediction]
    """Of the last model, as what follows."""
    class_samples: dict[str, list[Prediction]]
    right: list[Prediction]
    mistakes: list[Prediction]
    uncertain: list[Prediction]
    files: Mapping[str, Mapping[str, Any]]
    provenance: list[tuple[str, str]]
    inspection: Inspection | None
    """None for a fusion, whose backbones have their own."""
    explanations: list[Explanation]
    """Empty for a fusion and for a network without places to look at."""

    @property
    def name(self) -> str:
        """Unique on the page."""
        return f"{self.set_name}-{self.backbone}"

    @property
    def samples(self) -> list[str]:
        """The images that are shown large."""
        return [each.image for each in self.right + self.mistakes + self.uncertain]

    @property
    def thumbs(self) -> list[str]:
        """The images that are shown small."""
        return [each.image for samples in self.class_samples.values() for each in samples]


@dataclass(frozen=True)
class SetView:
    """What the page shows of all the runs of a set together."""

    name: str
    survey: Survey
    accuracies: IntervalChart
    comparisons: list[str]


@contextmanager
def reading(path: Path) -> Iterator[Path]:
    """Turn what can be wrong with the file `path` into a UserError."""
    try:
        yield path
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be used ({error!r}); delete it and run `dvc repro`"
        ) from None


def read_params(path: Path) -> dict[str, Any]:
    """Read the parameters.

    The entry `sets` of what is returned holds one's `own` too. Raises UserError unless they name
    one set and one backbone at least, and for a name that no stage takes: a name that is misspelt
    in a section ends that section's stage, but DVC passes over one that stands outside of them.
    """
    try:
        params = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run this in the project's folder") from None
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML ({text}); correct it") from None
    for name in ("sets", "own", "backbones", "fusions"):
        value = params.get(name) if isinstance(params, dict) else None
        named = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not named or not (value or name != "backbones"):
            raise UserError(f"{path} has {name}: {value!r}, not a list of names; correct it")
    for name in params:
        if name not in PARAMETERS:
            near = ", ".join(get_close_matches(str(name), PARAMETERS, 1, 0.6)) or "no other"
            raise UserError(
                f"{path} has {name!r}, which nothing reads, perhaps for {near}; correct it"
            )
    sets = params["sets"] + params["own"]
    if not sets:
        raise UserError(f"{path} has nothing in sets and nothing in own; name a set in one of them")
    for name in sets:
        find_set(name)
    return {**params, "sets": sets}


def view_charts(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, Chart]]:
    """Charts of a training history, none for a history with less than two entries.

    Values on val are empty where every image trains.
    """
    if len(rows) < 2:
        return []
    charts = []
    for column in ("accuracy", "loss"):
        series = {
            "train": [float(row[column]) for row in rows],
            "validation": [float(row[f"val_{column}"] or "nan") for row in rows],
        }
        chart = line_chart([float(row["epoch"]) for row in rows], series)
        if chart:
            charts.append((column, chart))
    return charts


def view_at_once(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, str, str]]:
    """Of a history with one entry: each score's name, and its text for train and validation.

    The latter is empty where every image trains.
    """
    if len(rows) != 1:
        return []
    (row,) = rows
    texts = {name: f"{float(text):.3f}" if text else "" for name, text in row.items()}
    return [(name, texts[name], texts[f"val_{name}"]) for name in ("accuracy", "loss")]


def read_run(metrics: Path, set_name: str, backbone: str) -> RunView:
    """Read what `evaluate` and training wrote of one set and backbone.

    Raises UserError for a file that is missing or cannot be used.
    """
    name = f"{set_name}-{backbone}"
    with reading(metrics / "summary" / f"{name}.json") as path:
        summary = read_json(path)
        classes = summary["classes"]
        results = compare_models(summary["metrics"])
        comparison = describe_comparison(summary["metrics"])
        names = [model for model in MODELS if model in summary["metrics"]]
        accuracies = {
            name: tuple(summary["metrics"][name][f"accuracy{end}"] for end in ("", "_low", "_high"))
            for name in names
        }
        reservations = find_reservations(summary)
        files = dict(sorted(summary["images"]["files"].items()))
        images = {"source": summary["images"]["source"]}
        if summary["images"]["missing"]:
            images["files that it lacks"] = summary["images"]["missing"]
        provenance = flatten(
            {"images": images, "weights": summary["weights"], "features": summary["features"]}
        )
    with reading(metrics / "classes" / f"{name}.csv") as path:
        class_rows = parse_classes(read_csv(path), names)
    models = []
    for model in names:
        with reading(metrics / "history" / f"{name}-{model}.csv") as path:
            history = read_csv(path)
            charts, at_once = view_charts(history), view_at_once(history)
        with reading(metrics / "predictions" / f"{name}-{model}.csv") as path:
            predictions = parse_predictions(read_csv(path))
            matrix = count_confusions(predictions, classes)
        with reading(metrics / "reliability" / f"{name}-{model}.csv") as path:
            diagram = reliability_diagram(parse_reliability(read_csv(path)))
        models.append(
            ModelView(
                MODELS[model],
                charts,
                at_once,
                diagram,
                heat_map(matrix, classes),
                find_confusions(matrix, classes),
                accuracies[model],
            )
        )
    inspection, explanations = None, []
    if "+" not in backbone:
        with reading(metrics / "inspect" / name / "facts.json") as path:
            inspection = parse_inspection(read_json(path))
        with reading(metrics / "explain" / name / "facts.json") as path:
            explanations = parse_explanations(read_json(path))
    return RunView(
        set_name,
        backbone,
        results,
        comparison,
        reservations,
        models,
        class_rows,
        predictions,
        sample_classes(predictions),
        sample_right(predictions),
        confident_mistakes(predictions),
        most_uncertain(predictions),
        files,
        provenance,
        inspection,
        explanations,
    )


def read_survey(set_name: str, doubled: int) -> Survey:
    """Read what the stages `survey` and `split` wrote of a set; `doubled` images have a duplicate.

    Raises UserError for a file that is missing or cannot be used.
    """
    with reading(Path(f"data/splits/{set_name}.csv")) as path:
        split = read_csv(path)
    with reading(Path(f"metrics/survey/{set_name}.csv")) as path:
        return summarise_set(read_csv(path), split, doubled)


def view_set(name: str, survey: Survey, runs: Sequence[RunView]) -> SetView:
    """What the runs of one set come to, side by side."""
    accuracies = [
        (f"{run.backbone}, {model.title}", *model.accuracy) for run in runs for model in run.models
    ]
    last = {f"{run.backbone}, {run.models[-1].title}": run.predictions for run in runs}
    return SetView(name, survey, interval_chart(accuracies), compare_with_best(last))


def read_duplicates(path: Path) -> list[DuplicateGroup]:
    """Read a set's groups of duplicates.

    Raises UserError for a file that is missing or cannot be used.
    """
    with reading(path):
        return parse_duplicates(read_csv(path))


def read_times(folder: Path) -> list[Use]:
    """Read what the stages that DVC ran here have taken.

    Raises UserError for a file that cannot be used.
    """
    uses = []
    for file in sorted(folder.glob("*/*.json")):
        with reading(file) as path:
            uses.append(parse_use(path.parent.name, read_json(path)))
    return uses


def _jpeg_name(image: str) -> str:
    # Two images can differ by their folders or endings alone, and hold what a link must not.
    return f"{hashlib.sha256(image.encode()).hexdigest()[:16]}.jpg"


def picture_name(set_name: str, image: str) -> str:
    """Path of a sample picture inside the report's folder."""
    return f"pictures/large/{set_name}/{_jpeg_name(image)}"


def thumb_name(set_name: str, image: str) -> str:
    """Path of a small picture inside the report's folder."""
    return f"pictures/small/{set_name}/{_jpeg_name(image)}"


def stage_picture(stage: str, run: str, file: str) -> str:
    """Path of a picture that another stage wrote inside the report's folder."""
    return f"pictures/{stage}/{run}/{file}"


def copy_pictures(stage: str, run: str, files: Iterable[str], folder: Path) -> None:
    """Copy pictures that a stage wrote of a run into the report's folder.

    Raises UserError for a file that is missing.
    """
    for file in files:
        target = folder / stage_picture(stage, run, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        with reading(Path("metrics", stage, run, file)) as path:
            shutil.copyfile(path, target)


def write_pictures(
    raw: Path, set_name: str, images: Iterable[str], thumbs: Iterable[str], folder: Path
) -> None:
    """Write the set's `images`, and small ones of `thumbs`, into the report's `folder`, square.

    Raises UserError when the archive is missing, cannot be read, or lacks one of them.
    """
    archive = raw / set_name / find_set(set_name).archive
    wanted = {picture_name: (PICTURE_SIDE, set(images)), thumb_name: (THUMB_SIDE, set(thumbs))}
    names = sorted(set().union(*(each for _, each in wanted.values())))
    with reading(archive):
        archive.stat()
    if not names:
        return
    members = progress_bar(
        read_members(archive, names), total=len(names), desc=set_name, unit="picture"
    )
    for position, data in members:
        for path_of, (side, shown) in wanted.items():
            if names[position] not in shown:
                continue
            try:
                picture = Image.fromarray(decode(data, side, "center"))
            except ValueError as error:
                raise UserError(
                    f"{names[position]} in {archive} is no readable picture ({error}); "
                    "download the archive again"
                ) from None
            path = folder / path_of(set_name, names[position])
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, "JPEG", quality=85)


def render(
    params: Mapping[str, Any],
    sets: Sequence[SetView],
    runs: Sequence[RunView],
    duplicates: Mapping[str, Sequence[DuplicateGroup]],
) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        sets=sets,
        runs=runs,
        duplicates=duplicates,
        reservations=group_reservations(
            {f"{each.set_name}, {each.backbone}": each.reservations for each in runs}
        ),
        parameters=group_parameters(params),
        scores=SCORES.values(),
        picture_name=picture_name,
        picture_side=PICTURE_SIDE,
        thumb_name=thumb_name,
        stage_picture=stage_picture,
    )


def main(arguments: Sequence[str]) -> None:
    """Read what there is, render the page, write it with its pictures."""
    Parser(__doc__).parse_args(arguments)
    params = read_params(Path("params.yaml"))
    runs = [
        read_run(Path("metrics"), set_name, backbone)
        for set_name in params["sets"]
        for backbone in params["backbones"] + params["fusions"]
    ]
    duplicates = {
        set_name: read_duplicates(Path(f"data/duplicates/{set_name}.csv"))
        for set_name in params["sets"]
    }
    sets = [
        view_set(
            name,
            read_survey(name, sum(len(group.members) for group in duplicates[name])),
            [each for each in runs if each.set_name == name],
        )
        for name in params["sets"]
    ]
    with replacing(Path("metrics/report")) as folder:
        folder.mkdir()
        for set_name in params["sets"]:
            own = [each for each in runs if each.set_name == set_name]
            samples = [name for each in own for name in each.samples]
            thumbs = [name for each in own for name in each.thumbs]
            thumbs += [each.image for group in duplicates[set_name] for each in group.members]
            write_pictures(Path("data/raw"), set_name, samples, thumbs, folder)
        for each in runs:
            seen = each.inspection.files if each.inspection else []
            explained = [file for explanation in each.explanations for file in explanation.files]
            copy_pictures("inspect", each.name, seen, folder)
            copy_pictures("explain", each.name, explained, folder)
        page = render(params, sets, runs, duplicates)
        (folder / "index.html").write_text(page, "utf-8", newline="\n")
    times = tabulate_times(
        read_times(Path("data/times")), params["sets"], params["backbones"] + params["fusions"]
    )
    with replacing(Path("metrics/times.js")) as script:
        script.write_text(as_script(times), "utf-8")


if __name__ == "__main__":
    run(main)
