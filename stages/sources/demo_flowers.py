"""The set `demo`: flowers that were never grown, drawn of what data/sets/demo/species.yaml says.

Points are complex numbers, y downwards: those of the picture from 0 to 1 + 1j, those of a petal
from its base, 0, to its tip, 1. Colours are RGB, 0 to 255.
"""

import gzip
import io
import os
import signal
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter
from PIL.ImageColor import getrgb

from stages.common.command_line import UserError
from stages.common.files import replacing
from stages.common.parameters import read_yaml
from stages.common.progress import progress_bar

Brush = ImageDraw.ImageDraw
DEMO_SEED, SIZE, CANVAS = 17, 128, 256
DATA = read_yaml(Path(__file__).parents[2] / "data/sets/demo/species.yaml")
SIDES = {name: np.array(points) @ (1, 1j) for name, points in DATA["outlines"].items()}
COATS = {name: np.array(DATA["petal"] + coats) for name, coats in DATA["markings"].items()}


@dataclass(frozen=True)
class Species:
    """What flowers of a species have in common; species.yaml says what the entries mean."""

    name: str
    petals: int
    shape: str
    width: float
    colours: Sequence[Sequence[str]]
    marking: str = "plain"
    mark: str = "#ffffff"
    layers: int = 1
    spread: float = 360
    aim: float = 0
    flowers: int = 1
    size: float = 1
    centre: Sequence[Mapping[str, Any]] = ()


SPECIES = tuple(Species(name, **traits) for name, traits in DATA["species"].items())
LEAF, STEM, WEED = (Species(name, **traits) for name, traits in DATA["others"].items())


def _petal(kind: Species, bow: float) -> Any:
    """Edges of what a petal is drawn of, (coats, points)."""
    edge = np.concatenate([SIDES[kind.shape], SIDES[kind.shape].conj()[::-1]])
    x, y, length, width = COATS[kind.marking].T[:4, :, None]
    points = x + length * edge.real + 0.5j * kind.width * (y + width * edge.imag)
    return points + 1j * bow * points.real * (1 - points.real)


def _draw(brush: Brush, kind: Species, at: Any, along: Any, rng: Generator) -> None:
    """A flower, leaf or stem; `along` is as long as its petals, and turns it."""
    tilt, sun = rng.uniform(0, 0.2) * np.exp(7j * rng.random()), rng.uniform(0, 7)
    for part in (kind, *(Species("", **centre) for centre in kind.centre)):
        colours = [*rng.choice(np.array(part.colours)), part.mark]
        shares, alphas = np.split(COATS[part.marking][:, 4:], [3], 1)
        tones = shares @ [getrgb(each) for each in colours]
        for layer, depth in enumerate(range(part.layers, 0, -1)):
            turns = (np.arange(part.petals) + 0.5 + layer % 2 / 2) / part.petals - 0.5
            turns += rng.normal(0, 0.05, part.petals) / part.petals + rng.normal(0, 0.08)
            for turn in np.deg2rad(part.aim + part.spread * np.array(sorted(turns, key=abs)[::-1])):
                light = rng.normal(1.1, 0.04) + 0.12 * np.cos(turn - sun) - 0.1 * depth
                length = part.size * (1 - 0.24 * layer) * rng.normal(1, 0.05)
                points = length * np.exp(1j * turn) * along * _petal(part, rng.normal(0, 0.1))
                points = CANVAS * (at + (1 - abs(tilt)) * points + tilt * points.conj())
                fills = np.hstack([tones * light, alphas]).clip(0, 255).astype(int)
                for corners, fill in zip(points.view(float).tolist(), fills.tolist(), strict=True):
                    brush.polygon(corners, tuple(fill))


def _scatter(brush: Brush, kind: Species, top: float, most: int, rng: Generator) -> None:
    """Up to `most` leaves or flowers that look up, from `top` down."""
    for x, y, turn, size in rng.random((rng.integers(most), 4)):
        _draw(brush, kind, x + (top + y) * 1j, (0.2 + 0.4 * size) * np.exp((turn - 2) * 1j), rng)


def _plant(brush: Brush, kind: Species, rng: Generator) -> None:
    """A plant, all of its flowers of one morph and with as many petals, one more or less."""
    flowers, petals = 1 + rng.integers(kind.flowers), kind.petals + int(rng.integers(-1, 2))
    kind = replace(kind, petals=petals, colours=[rng.choice(np.array(kind.colours))])
    radius = rng.normal(0.38, 0.05) / flowers**0.35
    foot, middle = rng.normal(0.5, 0.15) + 1.05j, complex(*rng.normal(0.48, 0.06, 2))
    middle -= radius * (0.6 - kind.spread / 600) * np.exp(1j * np.deg2rad(kind.aim))
    turns = 2 * np.pi * (rng.random() + np.arange(flowers) / flowers)
    places = middle + 0.8 * radius * np.exp(1j * turns) * (flowers > 1)
    for place in places:
        _draw(brush, STEM, foot, place - foot, rng)
    for turn in rng.uniform(0.3, 1.5, rng.integers(2, 7)) * rng.choice([-1, 1]):
        along = radius * rng.uniform(0.7, 1.3) * np.exp((turn - np.pi / 2) * 1j)
        _draw(brush, LEAF, foot + (middle - foot) * rng.uniform(0.1, 0.6), along, rng)
    for place in places:
        _draw(brush, kind, place, radius * rng.normal(1, 0.07), rng)


def image_of(species: Species, seed: int, number: int) -> bytes:
    """JPEG file of quality 90 with a picture of the species; it depends on the arguments alone."""
    rng, file = np.random.default_rng([seed, number]), io.BytesIO()
    dark, light = np.array([getrgb(each) for each in rng.choice(DATA["backdrops"])])
    tones = dark + (light - dark) * rng.random((5, 5, 1)) + rng.normal(0, 8, (5, 5, 3))
    canvas = Image.fromarray(tones.clip(0, 255).astype(np.uint8)).resize((CANVAS, CANVAS))
    brush = ImageDraw.Draw(canvas, "RGBA")
    _scatter(brush, LEAF, 0.2, 30, rng)
    _scatter(brush, WEED, 0, 6, rng)
    canvas.paste(canvas.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 7))))
    _plant(brush, species, rng)
    _scatter(brush, LEAF, 0.8, 3, rng)
    canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    y, x = np.ogrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    shade = rng.normal(1.02, 0.13) + rng.normal(0, 0.12) * x + rng.normal(0, 0.12) * y
    pixels = np.asarray(canvas.resize((SIZE, SIZE))) * shade[..., None] * rng.normal(1, 0.05, 3)
    pixels += rng.normal(0, rng.uniform(1, 6), pixels.shape)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def images_of(species: Sequence[Species], each: int, seed: int) -> Iterator[bytes]:
    """JPEG files of `each` pictures of every species in turn, numbered from 0, on all cores."""
    repeated = [one for one in species for _ in range(each)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _follow_parent) as pool:
        with _interrupts_held():
            files = pool.map(image_of, repeated, repeat(seed), range(len(repeated)), chunksize=16)
        yield from files


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold interrupts back while the block runs, and for good in the processes that it starts.

    A terminal interrupts them too, and may do so while they still load their libraries.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent() -> None:
    """End when the parent is killed; a worker would otherwise wait for work for ever."""
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent
    parent.join()
    os._exit(1)


def write_demo_set(path: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    """Draw a .tgz whose members are called `names`, as many of each class as of another.

    It has the same bytes every time on the same machine. Raises UserError where `classes` are not
    the species that can be drawn.
    """
    if list(classes) != [species.name for species in SPECIES]:
        known = ", ".join(species.name for species in SPECIES)
        raise UserError(f"{path.name} cannot be drawn of other classes than: {known}")
    files = images_of(SPECIES, len(names) // len(SPECIES), DEMO_SEED)
    images = progress_bar(files, desc="drawing flowers", total=len(names), unit="image")
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in zip(names, images, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
