"""The report's page, and its pictures."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from stages.common.command_line import UserError
from stages.common.progress import progress_bar
from stages.pictures.decoding import decode
from stages.pictures.reading import read_members
from stages.pictures.table import table_path
from stages.reporting.charts import SHARES
from stages.reporting.runs import RunView, reading
from stages.reporting.sets import SetView
from stages.reporting.tables import SCORES, group_parameters

PICTURE_SIDE, THUMB_SIDE = 240, 96


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


def copy_pictures(run: RunView, folder: Path) -> None:
    """Copy pictures that stages drew of a run into the report's folder.

    Raises UserError for a file that is missing.
    """
    for stage, files in run.drawn.items():
        for file in files:
            target = folder / stage_picture(stage, run.name, file)
            target.parent.mkdir(parents=True, exist_ok=True)
            with reading(Path("metrics", stage, run.name, file)) as path:
                shutil.copyfile(path, target)


def write_pictures(shown: SetView, folder: Path) -> None:
    """Write the pictures of a set that are shown into the report's `folder`, square.

    Raises UserError when one of them cannot be had or read.
    """
    samples = [each for run in shown.runs for group in run.samples.values() for each in group]
    thumbs = [each for run in shown.runs for group in run.class_samples.values() for each in group]
    large = {each.image for each in samples}
    small = {each.image for each in thumbs}
    small |= {row["image"] for group in shown.duplicates for row in group}
    names, table = sorted(large | small), table_path(shown.name)
    with reading(table):
        table.stat()
    members = read_members(table, names)
    for position, data in progress_bar(members, total=len(names), desc=shown.name, unit="picture"):
        image = names[position]
        try:
            if image in large:
                write_square(folder / picture_name(shown.name, image), data, PICTURE_SIDE)
            if image in small:
                write_square(folder / thumb_name(shown.name, image), data, THUMB_SIDE)
        except ValueError as error:
            raise UserError(
                f"{image} of the set {shown.name} is no readable picture ({error}); run `dvc repro`"
            ) from None


def write_square(path: Path, data: bytes, side: int) -> None:
    """Write the middle of a picture, `side` pixels square. Raises ValueError if it is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(decode(data, side, "center")).save(path, "JPEG", quality=85)


def render(params: Mapping[str, Any], sets: Sequence[SetView]) -> str:
    """The page as HTML. Raises UserError where something that it shows is nowhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = [run for each in sets for run in each.runs]
    try:
        return environment.get_template("report.html.j2").render(
            sets=sets,
            runs=runs,
            reservations=group_reservations(runs),
            parameters=group_parameters(params),
            scores=SCORES,
            shares=SHARES,
            picture_name=picture_name,
            picture_side=PICTURE_SIDE,
            thumb_name=thumb_name,
            stage_picture=stage_picture,
        )
    except jinja2.UndefinedError as error:
        raise UserError(
            f"a file below metrics/ or data/duplicates/ is of another version ({error}); "
            "run `dvc repro`"
        ) from None


def group_reservations(runs: Sequence[RunView]) -> dict[tuple[str, str], list[str]]:
    """Each reservation once, with the names of the runs that it holds for."""
    groups: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for each in run.reservations:
            groups.setdefault(each, []).append(f"{run.set_name}, {run.backbone}")
    return groups
