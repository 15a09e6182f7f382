"""The set `demo`: flowers that were never grown, drawn from a table of 17 invented species.

A flower is a set of petals in space. Each petal is a curved patch that starts at the flower's
axis; it is projected on the picture, and every pixel of its box is traced back to the petal's own
coordinates: u from base (0) to tip (1), v across (-1 to 1 where it is widest). Outline, colour,
markings and shade are functions of u and v, so edges are smooth without supersampling.

    image = draw(SPECIES[0], np.random.default_rng(0))    # (128, 128, 3), uint8

Vectors in space are x right, y up, z towards the viewer; points of the picture are (x, y) in
pixels, y down. Colours are float RGB, 0 to 1.
"""

import gzip
import io
import os
import signal
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np
import scipy.io
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from stages.common.files import replacing
from stages.common.progress import progress_bar
from stages.sources.sets import SETS

Floats = NDArray[np.floating]

DEMO_SEED = 17
IMAGES_OF_A_SPECIES = 80

SHAPES = {
    "oval": (0.6, 0.45),
    "pointed": (0.7, 1.0),
    "spear": (0.45, 1.3),
    "spoon": (1.4, 0.4),
    "strap": (0.3, 0.25),
    "wedge": (1.1, 0.2),
}
"""Outlines: a petal's half width at u is u^a (1 - u)^b, scaled to a maximum of 1."""

MARKINGS = ("plain", "stripe", "blotch", "picotee", "veins", "spots", "tip", "ring")
CENTRES = ("button", "stamens", "eye", "throat", "none")
POSES = ("face", "upright", "hanging")
LEAVES = ("oval", "pointed", "strap")
GROWTHS = ("single", "cluster", "spike")


@dataclass(frozen=True)
class Species:
    """What the flowers of a species have in common; an image varies every trait a little."""

    name: str
    petals: int
    """Of the outermost layer."""
    shape: str
    """Outline of a petal, of SHAPES."""
    width: float
    """Greatest width of a petal, as a part of its length."""
    colours: tuple[tuple[str, str], ...]
    """Colour morphs, each base and tip as #rrggbb; the first is thrice as common as another."""
    marking: str = "plain"
    """Of MARKINGS."""
    mark: str = "#ffffff"
    """Colour of the marking."""
    layers: int = 1
    opening: float = 15.0
    """Degrees by which the outer petals rise from the flower's plane; 90 is a closed tube."""
    curl: float = 0.0
    """Bow of a petal as a part of its length: above 0 inwards, below 0 outwards."""
    notch: float = 0.0
    """Depth of the cuts in a petal's tip, as a part of its length."""
    teeth: float = 1.0
    """Cuts in a petal's tip: 1 makes a heart, more a fringe."""
    spread: float = 360.0
    """Degrees of the circle that the petals fill."""
    unequal: float = 0.0
    """By how much petals on one side are longer, as a part of their length."""
    centre: str = "button"
    """Of CENTRES."""
    centre_size: float = 0.2
    """Radius of the centre, as a part of a petal's length."""
    centre_colour: str = "#e8b818"
    pose: str = "face"
    """Where the flower looks, of POSES."""
    growth: str = "single"
    """Flowers of a stem, of GROWTHS."""
    leaf: str = "oval"
    """Outline of a leaf, of LEAVES."""
    leaf_width: float = 0.4
    leaf_colour: str = "#3f7a35"


SPECIES = (
    Species(
        "amber wheel", 13, "strap", 0.30,
        (("#c8640a", "#f7a51c"), ("#d08c08", "#fcd030"), ("#98300c", "#e0803c")),
        "ring", "#a84c08", layers=2, opening=8, centre_size=0.30, centre_colour="#5a2a12",
        leaf="oval", leaf_width=0.5,
    ),
    Species(
        "blue lantern", 6, "oval", 0.62,
        (("#3656b8", "#6f96ea"), ("#5a50b4", "#9a92e6"), ("#a0bcf0", "#7888e0")),
        "veins", "#20307c", opening=72, curl=0.22, centre="none", pose="hanging",
        growth="spike", leaf="strap", leaf_width=0.16, leaf_colour="#4f8a50",
    ),
    Species(
        "candle lily", 6, "spear", 0.42,
        (("#fff3c4", "#ffd86a"), ("#ffe9d0", "#ffb45a"), ("#e8dcd0", "#fff6f4")),
        "tip", "#f07a24", layers=1, opening=52, curl=-0.22, centre="stamens", centre_size=0.34,
        centre_colour="#b4521c", pose="upright", leaf="strap", leaf_width=0.14,
    ),
    Species(
        "copper bell", 5, "wedge", 0.70,
        (("#7c3418", "#cf7440"), ("#94461a", "#e09a50"), ("#7c2008", "#c85424")),
        "picotee", "#f4c48a", opening=66, curl=-0.24, centre="stamens", centre_size=0.5,
        centre_colour="#f0d890", pose="hanging", growth="cluster", leaf="oval", leaf_width=0.45,
    ),
    Species(
        "crimson star", 6, "pointed", 0.44,
        (("#8c0c28", "#d81c3c"), ("#b01048", "#ea4a72"), ("#f4a0b8", "#e04a80")),
        "stripe", "#ffd0c8", opening=10, centre_size=0.17, centre_colour="#f2d048",
        growth="cluster", leaf="pointed", leaf_width=0.34,
    ),
    Species(
        "dusk daisy", 19, "strap", 0.20,
        (("#7c5aa0", "#b890c8"), ("#94607c", "#d49cb0"), ("#a87cb8", "#e4c4ec")),
        "tip", "#e8c8d8", opening=12, curl=-0.1, centre_size=0.32, centre_colour="#d88c1c",
        leaf="pointed", leaf_width=0.3,
    ),
    Species(
        "frost rose", 7, "spoon", 0.84,
        (("#b8cce8", "#f4f8ff"), ("#d0c4e4", "#fbf4ff"), ("#e4ccdc", "#fff2f8")),
        "picotee", "#90aee0", layers=4, opening=16, curl=0.2, centre="none", leaf="oval",
        leaf_width=0.6, leaf_colour="#4a7460",
    ),
    Species(
        "golden fan", 9, "spoon", 0.36,
        (("#d08c08", "#fcd030"), ("#e0c410", "#fff05c"), ("#eedc50", "#fffab0")),
        "veins", "#a05808", layers=2, opening=14, spread=215, centre="stamens", centre_size=0.26,
        centre_colour="#a8480c", leaf="pointed", leaf_width=0.4,
    ),
    Species(
        "ivory cup", 6, "oval", 0.66,
        (("#e0dca8", "#fffae8"), ("#e8dcd0", "#fff6f4"), ("#fff3c4", "#ffd86a")),
        "blotch", "#b8c070", layers=2, opening=64, curl=0.2, centre="stamens", centre_size=0.3,
        centre_colour="#e0a828", pose="upright", leaf="strap", leaf_width=0.22,
        leaf_colour="#5a8c6a",
    ),
    Species(
        "lemon spark", 17, "spear", 0.19,
        (("#e0c410", "#fff05c"), ("#eedc50", "#fffab0"), ("#d08c08", "#fcd030")),
        "plain", layers=2, opening=18, curl=-0.06, centre_size=0.2, centre_colour="#c89410",
        leaf="pointed", leaf_width=0.26,
    ),
    Species(
        "mauve comet", 15, "spear", 0.2,
        (("#7c5aa0", "#b890c8"), ("#a87cb8", "#e4c4ec"), ("#64309c", "#b084dc")),
        "stripe", "#6a3488", layers=2, opening=20, unequal=0.4, centre_size=0.2,
        centre_colour="#e0b030", leaf="strap", leaf_width=0.2,
    ),
    Species(
        "night poppy", 5, "wedge", 1.0,
        (("#1c0c2c", "#5a2a78"), ("#200c1c", "#742850"), ("#4a2490", "#8c5cd0")),
        "blotch", "#0c0410", opening=26, curl=0.16, notch=0.06, teeth=5, centre="stamens",
        centre_size=0.3, centre_colour="#c8b890", leaf="pointed", leaf_width=0.5,
        leaf_colour="#56806a",
    ),
    Species(
        "pearl aster", 18, "strap", 0.17,
        (("#d8d4e4", "#fdfbff"), ("#e4ccdc", "#fff2f8"), ("#b890c8", "#e0c4ec")),
        "plain", layers=1, opening=12, centre_size=0.27, centre_colour="#e8c020",
        growth="cluster", leaf="strap", leaf_width=0.2,
    ),
    Species(
        "rust dahlia", 14, "pointed", 0.36,
        (("#7c2008", "#c85424"), ("#98300c", "#e0803c"), ("#8c0c28", "#d81c3c")),
        "tip", "#f0a860", layers=4, opening=12, curl=0.12, centre="button", centre_size=0.12,
        centre_colour="#7c3010", leaf="oval", leaf_width=0.5,
    ),
    Species(
        "sky trumpet", 5, "wedge", 0.98,
        (("#7cb4ec", "#4a84dc"), ("#a0bcf0", "#7888e0"), ("#5a50b4", "#9a92e6")),
        "stripe", "#e4f2ff", opening=34, curl=-0.26, centre="throat", centre_size=0.26,
        centre_colour="#fff8c8", leaf="oval", leaf_width=0.66,
    ),
    Species(
        "twin heart", 5, "wedge", 0.84,
        (("#f4a0b8", "#e04a80"), ("#f8c0c8", "#ee7088"), ("#b01048", "#ea4a72")),
        "blotch", "#fff0e8", opening=10, notch=0.2, teeth=1, centre="eye", centre_size=0.14,
        centre_colour="#e0d050", growth="cluster", leaf="oval", leaf_width=0.5,
    ),
    Species(
        "violet ruff", 8, "wedge", 0.7,
        (("#4a2490", "#8c5cd0"), ("#64309c", "#b084dc"), ("#7c5aa0", "#b890c8")),
        "picotee", "#d8c0f4", layers=3, opening=16, curl=0.06, notch=0.08, teeth=6,
        centre="eye", centre_size=0.14, centre_colour="#f0e070", leaf="oval", leaf_width=0.4,
    ),
)  # fmt: skip
"""The 17 species of the set, in the order of sets.DEMO_NAMES."""


def species_of(seed: int, count: int) -> tuple[Species, ...]:
    """`count` random species; equal seeds give equal species, and none is one of SPECIES.

    Their names are `seed-number`. The first species of a greater count are the same.
    """
    return tuple(
        _random_species(f"{seed}-{number}", np.random.default_rng([seed, number]))
        for number in range(count)
    )


def _random_species(name: str, rng: Generator) -> Species:
    kind = rng.choice(["few", "many", "double", "bell", "cup"], p=[0.3, 0.25, 0.2, 0.125, 0.125])
    petals = {"few": (4, 9), "many": (11, 23), "double": (6, 15), "bell": (4, 8), "cup": (4, 8)}
    low, high = petals[kind]
    count = int(rng.integers(low, high))
    slender = rng.random() < 0.4
    shape = str(rng.choice(["pointed", "spear", "strap"] if slender else list(SHAPES)))
    width = float(np.clip(rng.uniform(2.6, 5.2) / count, 0.15, 1.0))
    side = kind in ("bell", "cup")
    hue, other = rng.uniform(0.52, 1.19), rng.normal(0, 0.06)  # no green petals
    colours = tuple(_random_colours(rng, hue + turn) for turn in (0.0, other))
    return Species(
        name,
        count,
        shape,
        width,
        colours,
        marking=str(rng.choice(MARKINGS)),
        mark=_hex(_hsv(rng.random(), rng.uniform(0.1, 0.9), rng.uniform(0.3, 1.0))),
        layers=int(rng.integers(3, 5)) if kind == "double" else int(rng.integers(1, 3)),
        opening=float(rng.uniform(48, 74) if side else rng.uniform(6, 34)),
        curl=float(rng.uniform(-0.26, 0.24)),
        notch=float(rng.choice([0, 0, 0.06, 0.1, 0.2])),
        teeth=float(rng.choice([1, 1, 4, 6])),
        spread=215.0 if kind == "few" and rng.random() < 0.12 else 360.0,
        unequal=float(rng.choice([0, 0, 0, 0.4])),
        centre=str(rng.choice(CENTRES)),
        centre_size=float(rng.uniform(0.12, 0.34)),
        centre_colour=_hex(_hsv(rng.uniform(0.04, 0.18), rng.uniform(0.3, 0.95), rng.random())),
        pose={"bell": "hanging", "cup": "upright"}.get(kind, "face"),
        growth="single" if kind == "double" else str(rng.choice(GROWTHS, p=[0.6, 0.25, 0.15])),
        leaf=str(rng.choice(LEAVES)),
        leaf_width=float(rng.uniform(0.14, 0.66)),
        leaf_colour=_hex(_hsv(rng.uniform(0.24, 0.42), rng.uniform(0.3, 0.6), 0.5)),
    )


def _random_colours(rng: Generator, hue: float) -> tuple[str, str]:
    """Base and tip of one hue, the base darker or more saturated."""
    saturation, value = rng.beta(2, 1.4), rng.uniform(0.55, 1.0)
    base = _hsv(hue + rng.normal(0, 0.03), min(1.0, saturation * 1.2), value * rng.uniform(0.5, 1))
    return _hex(base), _hex(_hsv(hue, saturation, value))


def _hsv(hue: float, saturation: float, value: float) -> Floats:
    """RGB of a colour; each of the arguments is a part of 1, and the hue goes round."""
    sixth = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return value * (1 - saturation * np.clip(np.minimum(sixth, 4 - sixth), 0, 1))


def _hex(colour: Floats) -> str:
    return "#" + "".join(f"{round(float(each) * 255):02x}" for each in colour)


def _rgb(text: str) -> Floats:
    return np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])


# Painting: every function below changes `canvas`, a float32 array (size, size, 3).


@dataclass(frozen=True)
class Patch:
    """A petal or leaf: where it lies on the picture, its outline and its colours."""

    origin: Floats
    along: Floats
    """From base to tip, in pixels."""
    across: Floats
    """From the middle to the widest edge, in pixels."""
    bow: Floats
    """Added at u times u squared, in pixels."""
    shape: str
    base: Floats
    tip: Floats
    marking: str
    mark: Floats
    notch: float = 0.0
    teeth: float = 1.0
    light: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Brightness at the middle, and its rise to one edge and to the tip."""
    phase: float = 0.0
    """Shifts the fine pattern, in radians."""
    shadow: float = 0.35
    """How much the patch darkens what lies just outside its edge."""


_U = np.linspace(0, 1, 65)


def _outline(a: float, b: float) -> tuple[Floats, Floats]:
    widths = _U**a * (1 - _U) ** b
    widths /= widths.max()
    return widths, np.abs(np.gradient(widths, _U))


_OUTLINES = {name: _outline(*powers) for name, powers in SHAPES.items()}


def _paint_patch(canvas: Floats, patch: Patch) -> None:
    """Paint a petal or leaf over the canvas, with a soft shadow around it."""
    size = len(canvas)
    halo = size / 40
    widths, slopes = _OUTLINES[patch.shape]
    steps = _U[::8, None]
    middle = patch.origin + patch.along * steps + patch.bow * steps**2
    reach = widths[::8, None] * np.abs(patch.across) + halo
    low = np.clip(np.floor((middle - reach).min(0)), 0, size).astype(int)
    high = np.clip(np.ceil((middle + reach).max(0)) + 1, 0, size).astype(int)
    if (high <= low).any():
        return
    region = canvas[low[1] : high[1], low[0] : high[0]]
    inverse = np.array(
        [[patch.across[1], -patch.across[0]], [-patch.along[1], patch.along[0]]], np.float32
    ) / _cross(patch.along, patch.across)
    x = np.arange(low[0], high[0], dtype=np.float32) - np.float32(patch.origin[0])
    y = np.arange(low[1], high[1], dtype=np.float32)[:, None] - np.float32(patch.origin[1])
    u, v = (row[0] * x + row[1] * y for row in inverse)
    # u + k u^2 = the straight patch's u, solved in the form that holds for k = 0.
    bow_u, bow_v = inverse @ patch.bow.astype(np.float32)
    u = 2 * u / (1 + np.sqrt(np.maximum(1 + 4 * bow_u * u, np.float32(0.01))))
    v -= bow_v * u * u
    width = np.interp(u, _U, widths).astype(np.float32)
    slope = np.minimum(np.interp(u, _U, slopes), 8).astype(np.float32)
    du, dv = np.hypot(*inverse.T)
    # The distance to the edge in pixels, to first order: value over gradient.
    depth = (width - np.abs(v)) / np.hypot(dv, slope * du)
    end = 1 - u
    if patch.notch:
        end -= np.float32(patch.notch / 2) * (1 + np.cos(np.float32(np.pi * patch.teeth) * v))
    depth = np.minimum(depth, np.minimum(end, u) / du)
    region *= (1 - patch.shadow * _unit(1 + depth / halo) ** 2)[..., None]
    cover = _unit(depth + 0.5)
    colour = _patch_colour(patch, _unit(u), v / np.maximum(width, 0.05), v)
    region += cover[..., None] * (colour - region)


def _patch_colour(patch: Patch, u: Floats, q: Floats, v: Floats) -> Floats:
    """Colour at u, at q from the middle (0) to either edge (-1, 1), and at v; (..., 3)."""
    base, tip, mark = (each.astype(np.float32) for each in (patch.base, patch.tip, patch.mark))
    colour = base + (u * (2 - u))[..., None] * (tip - base)
    if patch.marking != "plain":
        amount = 0.85 * _unit(_marking(patch.marking, u, q, v, patch.phase))
        colour += amount[..., None] * (mark - colour)
    middle, edge, rise = patch.light
    fine = 0.05 * np.cos(q * 14 + patch.phase) - 0.12 * _unit(1 - np.abs(q * 7))
    shade = middle + edge * np.clip(q, -1, 1) + rise * (u - 0.5) + fine * (1 - u)
    shade *= 0.6 + 0.4 * np.minimum(u * 2.5, 1)
    return np.asarray(colour * shade[..., None])


def _marking(kind: str, u: Floats, q: Floats, v: Floats, phase: float) -> Floats:
    """How much of the marking's colour there is at each point; to be clipped to 0 to 1."""
    found: Floats
    match kind:
        case "stripe":
            found = np.exp(-((q / 0.24) ** 2)) * (1 - 0.7 * u)
        case "blotch":
            found = (0.45 - u + 0.1 * np.cos(3 * q)) * 6
        case "picotee":
            found = (np.maximum(np.abs(q), u * 1.04) - 0.78) * 6
        case "veins":
            found = (0.5 + 0.5 * np.cos(np.pi * 5 * q)) ** 4 * (1.1 - u)
        case "spots":
            found = (np.sin(u * 30 + phase) * np.cos(v * 9 + phase) - 0.45) * 6
        case "tip":
            found = (u - 0.62) * 4
        case _:
            found = 1.4 - np.abs(u - 0.42) * 9
    return found


def _unit(values: Floats) -> Floats:
    """`values` clipped to 0 to 1; a third of the time of numpy.clip on small arrays."""
    found: Floats = np.maximum(np.minimum(values, np.float32(1)), np.float32(0))
    return found


@dataclass(frozen=True)
class Sun:
    """Where the light comes from, a unit vector in space, and how much shadows are filled in."""

    towards: Floats
    ambient: float


@dataclass(frozen=True)
class Blossom:
    """One flower: where it is, where it looks, and what the individual makes of its species."""

    species: Species
    at: Floats
    radius: float
    """Length of an outer petal, in pixels."""
    axis: Floats
    first: Floats
    """With `second` and `axis`, three unit vectors at right angles."""
    second: Floats
    base: Floats
    tip: Floats
    mark: Floats
    opening: float
    width: float
    """Half width of a petal, as a part of its length."""
    curl: float


def _blossom(species: Species, at: Floats, radius: float, rng: Generator) -> Blossom:
    axis = _axis(species.pose, rng)
    first, second = _plane(axis, rng.uniform(0, 2 * np.pi) if species.spread == 360 else 0.1)
    rates = np.array([3.0] + [1.0] * (len(species.colours) - 1))
    morph = species.colours[rng.choice(len(species.colours), p=rates / rates.sum())]
    tint = 1 + rng.normal(0, 0.07, 3) + rng.normal(0, 0.08)
    base, tip, mark = (np.clip(_rgb(each) * tint, 0, 1) for each in (*morph, species.mark))
    opening = species.opening + rng.normal(0, 8)
    width = species.width * rng.normal(1, 0.13) / 2
    curl = species.curl + rng.normal(0, 0.06)
    return Blossom(species, at, radius, axis, first, second, base, tip, mark, opening, width, curl)


def _petals(flower: Blossom, sun: Sun, rng: Generator) -> list[Patch]:
    """Petals of a flower, the farthest first."""
    species = flower.species
    found = []
    for layer in range(species.layers):
        count = max(3, species.petals - layer * max(1, species.petals // 8))
        count += int(rng.integers(-1, 2)) if count > 8 else 0
        top = min(80.0, flower.opening + 52)
        rise = flower.opening + (top - flower.opening) * layer / max(3, species.layers)
        for number in range(count):
            turn = (number + layer / 2 + rng.normal(0, 0.1)) / count
            angle, lift = np.deg2rad([species.spread * turn, rise + rng.normal(0, 3)])
            found.append(_petal(flower, layer, angle, lift, sun, rng))
    return [patch for _, patch in sorted(found, key=lambda each: each[0])]


def _petal(
    flower: Blossom, layer: int, angle: float, lift: float, sun: Sun, rng: Generator
) -> tuple[float, Patch]:
    """The petal at `angle` around the axis, `lift` above the flower's plane, and its nearness."""
    species, axis = flower.species, flower.axis
    radial = np.cos(angle) * flower.first + np.sin(angle) * flower.second
    side = np.cos(angle) * flower.second - np.sin(angle) * flower.first
    direction = np.cos(lift) * radial + np.sin(lift) * axis
    normal = np.cos(lift) * axis - np.sin(lift) * radial
    length = flower.radius * (1 - 0.15 * layer)
    root = (radial * 0.08 + axis * 0.05 * layer) * length
    longer = 1 + species.unequal * np.cos(angle) + rng.normal(0, 0.05)
    along = _at_least(_flat(direction) * length * longer, 0.22 * length)
    across = _thick(_flat(side) * flower.width * length * rng.normal(1, 0.06), along)
    bow = _flat(normal) * (flower.curl + rng.normal(0, 0.03)) * length
    inside = normal[2] > -0.05
    patch = Patch(
        origin=flower.at + _flat(root),
        along=along,
        across=across,
        bow=_unfolded(bow, along, across),
        shape=species.shape,
        base=flower.base if inside else flower.base * 0.85,
        tip=flower.tip if inside else flower.tip * 0.8 + 0.06,
        marking=species.marking,
        mark=flower.mark,
        notch=species.notch,
        teeth=species.teeth,
        light=_light(normal if inside else -normal, side, direction, sun),
        phase=rng.uniform(0, 6),
    )
    return float((root + direction * length * 0.5)[2] + length * 0.01 * layer), patch


def _plane(axis: Floats, roll: float) -> tuple[Floats, Floats]:
    """Two unit vectors that span the plane across `axis`, turned by `roll`."""
    across = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [0.0, -1.0, 0.0])
    across /= np.linalg.norm(across)
    other = np.cross(axis, across)
    return (
        np.cos(roll) * across + np.sin(roll) * other,
        np.cos(roll) * other - np.sin(roll) * across,
    )


def _flat(vector: Floats) -> Floats:
    """The picture's part of a vector in space."""
    return np.array([vector[0], -vector[1]])


def _at_least(vector: Floats, length: float) -> Floats:
    return vector * max(1.0, length / max(float(np.hypot(*vector)), 1e-6))


def _cross(a: Floats, b: Floats) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def _thick(across: Floats, along: Floats) -> Floats:
    """`across`, widened where a petal seen edge-on would be thinner than a real, hollow one."""
    length = float(np.hypot(*along))
    seen = _cross(along, across) / length
    least = 0.3 * float(np.hypot(*across)) + 0.06 * length
    if abs(seen) >= least:
        return across
    return across + np.array([-along[1], along[0]]) / length * (
        (-least if seen < 0 else least) - seen
    )


def _unfolded(bow: Floats, along: Floats, across: Floats) -> Floats:
    """`bow`, shortened where the petal would fold over itself."""
    fold = _cross(bow, across) / _cross(along, across)
    return bow * min(1.0, 0.4 / max(abs(fold), 1e-6))


def _light(normal: Floats, side: Floats, along: Floats, sun: Sun) -> tuple[float, float, float]:
    """Brightness of a petal by Lambert's law, and how it varies on a petal that is a bowl."""
    middle, edge, tip = (float(vector @ sun.towards) for vector in (normal, side, along))
    bright = (1 - sun.ambient) * max(0.15, 0.25 + 0.8 * middle)
    return sun.ambient + bright, -0.22 * edge, 0.25 * tip


def _paint_flower(
    canvas: Floats, species: Species, at: Floats, radius: float, sun: Sun, rng: Generator
) -> None:
    flower = _blossom(species, at, radius, rng)
    petals = _petals(flower, sun, rng)
    sideways = flower.axis[2] < 0.5
    behind = len(petals) // 2 if sideways else len(petals)
    for petal in petals[:behind]:
        _paint_patch(canvas, petal)
    if species.centre != "none":
        centre = at + _flat(flower.axis) * radius * (0.12 if sideways else 0.04)
        paint = _paint_stamens if species.centre == "stamens" else _paint_disc
        paint(canvas, flower, centre, sun, rng)
    for petal in petals[behind:]:
        _paint_patch(canvas, petal)


def _axis(pose: str, rng: Generator) -> Floats:
    """Where a flower looks: a unit vector in space."""
    lean = rng.normal(0, 0.25)
    if pose == "face":
        axis = np.array([rng.normal(0, 0.36), rng.normal(0.12, 0.36), 1.0])
    elif pose == "upright":
        axis = np.array([lean, 1.0, rng.uniform(0.1, 0.75)])
    else:
        axis = np.array([lean, -1.0, rng.uniform(-0.1, 0.55)])
    return np.asarray(axis / np.linalg.norm(axis))


def _centre(species: Species, radius: float, rng: Generator) -> tuple[float, Floats]:
    """Radius in pixels and colour of the centre of a flower."""
    colour = np.clip(_rgb(species.centre_colour) * rng.normal(1, 0.06, 3), 0, 1)
    return max(0.5, radius * species.centre_size * rng.normal(1, 0.08)), colour


def _paint_disc(canvas: Floats, flower: Blossom, at: Floats, sun: Sun, rng: Generator) -> None:
    """The middle of a flower as a disc seen at a slant."""
    reach, colour = _centre(flower.species, flower.radius, rng)
    box, x, y = _box(canvas, at, reach * 1.3 + 1)
    east, south = _flat(flower.axis) / max(np.hypot(*flower.axis[:2]), 1e-6)
    squeeze = max(0.5, flower.axis[2])
    r = np.hypot((x * east + y * south) / squeeze, y * east - x * south) / reach
    cover = np.clip((1 - r) * reach + 0.5, 0, 1)
    shade = 0.75 + 0.35 * (x * sun.towards[0] - y * sun.towards[1]) / reach
    if flower.species.centre == "button":
        shade = shade * (0.85 + 0.25 * np.cos(r * 9 + 0.5)) + rng.normal(0, 0.13, r.shape)
    elif flower.species.centre == "eye":
        shade = np.where(r < 0.55, 0.45, shade + 0.3)
    else:
        cover = np.clip(1.25 - r, 0, 1) ** 1.5
        shade = np.where(r < 0.35, 0.35, 1.0)
    if flower.species.centre != "throat":
        box *= (1 - 0.4 * np.clip(1.3 - r, 0, 1))[..., None]
    box += cover[..., None] * (colour * shade[..., None] - box)


def _paint_stamens(canvas: Floats, flower: Blossom, at: Floats, _: Sun, rng: Generator) -> None:
    """Threads that rise from the middle of a flower, a coloured grain at the end of each."""
    reach, colour = _centre(flower.species, flower.radius, rng)
    count = int(rng.integers(7, 13))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    outward = np.cos(angles)[:, None] * flower.first + np.sin(angles)[:, None] * flower.second
    ends = outward * rng.uniform(0.55, 1, (count, 1)) + flower.axis * 1.1
    ends_x, ends_y = (_flat(ends.T) * reach)[:, :, None, None]
    box, x, y = _box(canvas, at, reach * 1.6 + 2)
    part = np.clip((x * ends_x + y * ends_y) / (ends_x**2 + ends_y**2 + 1e-6), 0, 1)
    thread = np.hypot(x - part * ends_x, y - part * ends_y).min(0)
    grain = np.hypot(x - ends_x, y - ends_y).min(0)
    thin = len(canvas) / 128
    for distance, width, tone in (
        (thread, 0.45 * thin, 0.5 * colour + 0.42),
        (grain, 0.5 * thin + 0.1 * reach, colour),
    ):
        box *= (1 - 0.3 * np.clip(width + 1.5 - distance, 0, 1))[..., None]
        box += np.clip(width + 0.5 - distance, 0, 1)[..., None] * (tone - box)


def _box(canvas: Floats, at: Floats, reach: float) -> tuple[Floats, Floats, Floats]:
    """The canvas within `reach` of a point, and its pixels' x (1, w) and y (h, 1) from there."""
    low = np.clip(np.floor(at - reach), 0, len(canvas)).astype(int)
    high = np.clip(np.ceil(at + reach) + 1, 0, len(canvas)).astype(int)
    x = np.arange(low[0], high[0])[None, :] - at[0]
    y = np.arange(low[1], high[1])[:, None] - at[1]
    return canvas[low[1] : high[1], low[0] : high[0]], x, y


def _paint_stem(canvas: Floats, points: Floats, width: float, colour: Floats) -> None:
    """A line through points (n, 2) of the picture, lighter on its left."""
    size = len(canvas)
    for offset, part, tone in ((0.0, 1.0, 0.72), (-0.18, 0.55, 1.0)):
        mask = Image.new("L", (size * 3, size * 3))
        corners = [(float(x + offset * width) * 3, float(y) * 3) for x, y in points]
        ImageDraw.Draw(mask).line(corners, 255, max(1, round(width * part * 3)), "curve")
        cover = np.asarray(mask.reduce(3), np.float32)[..., None] / 255
        canvas += cover * ((colour * tone).astype(np.float32) - canvas)


def _paint_leaf(
    canvas: Floats,
    species: Species,
    at: Floats,
    angle: float,
    length: float,
    bright: float,
    rng: Generator,
) -> None:
    """A leaf of the species that grows from `at`; angle 0 is to the right, pi / 2 is up."""
    along = np.array([np.cos(angle), -np.sin(angle)]) * length
    across = np.array([-along[1], along[0]]) * species.leaf_width / 2 * rng.uniform(0.6, 1.1)
    colour = np.clip(_rgb(species.leaf_colour) * (1 + rng.normal(0, 0.08, 3)) * bright, 0, 1)
    _paint_patch(
        canvas,
        Patch(
            origin=at,
            along=along,
            across=across,
            bow=np.array([-along[1], along[0]]) * rng.normal(0, 0.14),
            shape=species.leaf,
            base=colour * 0.8,
            tip=colour,
            marking="stripe",
            mark=np.clip(colour * 1.25 + 0.05, 0, 1),
            light=(0.95, float(rng.normal(0, 0.16)), 0.15),
            phase=rng.uniform(0, 6),
            shadow=0.25,
        ),
    )


def _paint_plant(
    canvas: Floats, species: Species, at: Floats, radius: float, sun: Sun, rng: Generator
) -> None:
    """Stem, leaves and flowers of one plant, its main flower at `at`."""
    size = len(canvas)
    green = _rgb(species.leaf_colour) * rng.uniform(0.9, 1.2)
    foot = np.array([at[0] + rng.normal(0, 0.16) * size, size * 1.1])
    top = at + np.array([0.0, -radius * 0.5]) if species.pose == "hanging" else at
    bend = np.array([rng.normal(0, 0.08) * size, 0.0])
    part = np.linspace(0, 1, 9)[:, None]
    stem = foot + (top - foot) * part + bend * 4 * part * (1 - part)
    _paint_stem(canvas, stem, radius * rng.uniform(0.07, 0.11) + 1, green)
    for number in range(int(rng.integers(2, 6))):
        start = stem[int(rng.integers(1, 7))]
        angle = rng.uniform(-0.2, 1.1) if number % 2 else np.pi - rng.uniform(-0.2, 1.1)
        _paint_leaf(
            canvas, species, start, angle, radius * rng.uniform(0.8, 1.6), sun.ambient + 0.4, rng
        )
    growth = species.growth if rng.random() < 0.7 else "single"
    for place, part_radius in _flower_places(growth, stem, radius, rng):
        if species.pose == "hanging":
            hook = place + np.array([[0, -0.05], [0, -0.35]]) * part_radius
            _paint_stem(canvas, hook, part_radius * 0.12 + 1, green)
        _paint_flower(canvas, species, place, part_radius, sun, rng)


def _flower_places(
    growth: str, stem: Floats, radius: float, rng: Generator
) -> list[tuple[Floats, float]]:
    """Point and petal length of every flower of a plant whose stem goes through points (n, 2)."""
    top = stem[-1]
    if growth == "cluster":
        count = int(rng.integers(2, 5))
        angles = 2 * np.pi * (np.arange(count) + rng.uniform(0, 0.5, count)) / count
        away = radius * rng.uniform(0.6, 0.9, count)
        offsets = np.stack([np.cos(angles), np.sin(angles)], 1) * away[:, None]
        return [(top + offset, radius * rng.uniform(0.56, 0.74)) for offset in offsets]
    if growth == "spike":
        count = int(rng.integers(4, 8))
        places = []
        for number in range(count):
            down = np.array([0.0, 1.0]) * radius * (number * 0.42 - 0.75)
            sideways = np.array([(-1) ** number * radius * rng.uniform(0.12, 0.42), 0.0])
            places.append((top + down + sideways, radius * (0.42 + 0.035 * number)))
        return places
    return [(top, radius)]


# Scenes: what stands behind and before the flower, and the light.


def _noise(size: int, cells: int, rng: Generator) -> Floats:
    """Smooth noise, (size, size), mean 0 and deviation near 1; `cells` bumps a side."""
    coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _backdrop(size: int, rng: Generator) -> Floats:
    """Grass, soil, foliage, sky or a far blur, (size, size, 3), not yet blurred."""
    kind = rng.choice(["grass", "soil", "foliage", "sky", "blur"], p=[0.28, 0.17, 0.27, 0.1, 0.18])
    palette = {
        "grass": ("#2f5520", "#6a9440"),
        "soil": ("#3a2a1e", "#86684a"),
        "foliage": ("#152c18", "#3c6434"),
        "sky": ("#8fb8e0", "#dcebf6"),
        "blur": ("#2c4a30", "#9aa86c"),
    }[kind]
    dark, light = (_rgb(each) * (1 + rng.normal(0, 0.1, 3)) for each in palette)
    level = 0.5 + 0.25 * _noise(size, int(rng.integers(3, 6)), rng)
    level += (0.22 if kind == "soil" else 0.08) * _noise(size, size // 4, rng)
    level += rng.normal(0, 0.25) * np.linspace(-1, 1, size)[:, None]
    colour = dark + np.clip(level, 0, 1)[..., None] * (light - dark)
    picture = Image.fromarray((np.clip(colour, 0, 1) * 255).astype(np.uint8))
    brush = ImageDraw.Draw(picture)
    blades = {"grass": 70, "foliage": 45, "soil": 10, "sky": 8, "blur": 0}[kind]
    for _ in range(blades):
        _draw_blade(brush, size, kind == "foliage", rng)
    for _ in range(int(rng.integers(6, 16)) if kind == "blur" else 0):
        x, y = rng.uniform(0, size, 2)
        r = rng.uniform(0.03, 0.1) * size
        tone = tuple(int(each) for each in np.clip(light * rng.uniform(0.7, 1.5) * 255, 0, 255))
        brush.ellipse((x - r, y - r, x + r, y + r), tone)
    return np.asarray(picture, np.float32) / 255


def _draw_blade(brush: ImageDraw.ImageDraw, size: int, broad: bool, rng: Generator) -> None:
    """A blade of grass that grows from below, or a broad leaf anywhere."""
    x, y = rng.uniform(0, size), rng.uniform(0.4, 1.2) * size
    angle = rng.normal(np.pi / 2, 0.3)
    length, width = rng.uniform(0.2, 0.6) * size, rng.uniform(0.006, 0.02) * size
    if broad:
        y, angle = rng.uniform(0, size), rng.uniform(0, 2 * np.pi)
        length, width = rng.uniform(0.12, 0.34) * size, rng.uniform(0.02, 0.06) * size
    dx, dy = np.cos(angle), -np.sin(angle)
    tone = _hsv(rng.uniform(0.2, 0.36), rng.uniform(0.35, 0.65), rng.uniform(0.2, 0.62))
    corners = [
        (x + dx * length * part - dy * width * side, y + dy * length * part + dx * width * side)
        for part, side in ((0, 0.4), (0.4, 1), (1, 0), (0.4, -1), (0, -0.4))
    ]
    brush.polygon(corners, tuple(int(each * 255) for each in tone))


def _blurred(canvas: Floats, radius: float) -> Floats:
    picture = Image.fromarray((np.clip(canvas, 0, 1) * 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(picture, np.float32) / 255


WEEDS = (
    Species("", 5, "oval", 0.8, (("#f4f0d8", "#ffffff"),), centre_size=0.25),
    Species("", 5, "wedge", 0.9, (("#e8c010", "#ffe040"),), centre_size=0.2),
    Species("", 4, "oval", 0.8, (("#5a70c8", "#8ca8f0"),), centre_size=0.2),
    Species("", 5, "wedge", 0.9, (("#b8285c", "#e870a0"),), centre_size=0.2),
    Species("", 6, "pointed", 0.5, (("#6c3490", "#a468c8"),), centre_size=0.2),
    Species("", 4, "wedge", 1.0, (("#c83010", "#f06030"),), centre_size=0.15),
)
"""What grows between the flowers of any species, so that colours alone do not tell them apart."""


def draw(species: Species, rng: Generator, size: int = 128) -> NDArray[np.uint8]:
    """A picture of a flower of the species in the open: RGB, (size, size, 3), 0 to 255.

    Everything that `species` leaves open is drawn from `rng`: the individual, its pose, size and
    place, its neighbours, weeds, background, leaves before it, light, blur and noise.
    """
    angle, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.9)
    level = np.sqrt(1 - height**2)
    towards = np.array([np.cos(angle) * level, abs(np.sin(angle)) * level, height])
    sun = Sun(towards, rng.uniform(0.3, 0.65))
    canvas = _backdrop(size, rng)
    for _ in range(int(rng.choice([0, 0, 1, 2, 4]))):
        weed = WEEDS[rng.integers(len(WEEDS))]
        _paint_flower(
            canvas, weed, rng.uniform(0, size, 2), size * rng.uniform(0.05, 0.15), sun, rng
        )
    for _ in range(int(rng.choice([0, 0, 1, 1]))):
        place = np.array([rng.uniform(0, 1), rng.uniform(0.05, 0.8)]) * size
        _paint_flower(canvas, species, place, size * rng.uniform(0.1, 0.2), sun, rng)
    canvas = _blurred(canvas, size / 128 * rng.uniform(0.7, 3.2)).copy()
    radius = size * np.clip(rng.normal(0.34, 0.07), 0.22, 0.5)
    place = np.clip(rng.normal([0.5, 0.46], 0.09), 0.25, 0.75) * size
    _paint_plant(canvas, species, place, radius, sun, rng)
    _paint_foreground(canvas, rng)
    return _photograph(canvas, sun, rng)


def _paint_foreground(canvas: Floats, rng: Generator) -> None:
    """Leaves that reach in from the picture's edge, before the flower."""
    size = len(canvas)
    for _ in range(int(rng.choice([0, 0, 1, 1, 2]))):
        green = Species(
            "", 5, "oval", 0.5, (), leaf=str(rng.choice(LEAVES)), leaf_width=rng.uniform(0.1, 0.4),
            leaf_colour=_hex(_hsv(rng.uniform(0.22, 0.4), 0.5, rng.uniform(0.25, 0.6))),
        )  # fmt: skip
        angle = rng.uniform(0, 2 * np.pi)
        middle = np.array([0.5, 0.5]) + rng.normal(0, 0.14, 2)
        start = middle * size - np.array([np.cos(angle), -np.sin(angle)]) * 0.78 * size
        _paint_leaf(canvas, green, start, angle, size * rng.uniform(0.4, 0.8), 1.0, rng)


def _photograph(canvas: Floats, sun: Sun, rng: Generator) -> NDArray[np.uint8]:
    """Dappled light, colour of the light, exposure, vignette, blur and noise of the camera."""
    size = len(canvas)
    light = 1 + 0.07 * _noise(size, 4, rng)
    if rng.random() < 0.3:
        light = light - 0.3 * np.clip(_noise(size, int(rng.integers(4, 9)), rng), 0, 1)
    ramp = np.linspace(-1, 1, size)
    light = light + 0.1 * (ramp * sun.towards[0] - ramp[:, None] * sun.towards[1])
    light = light - rng.uniform(0, 0.25) * (ramp**2 + ramp[:, None] ** 2) / 2
    warmth = rng.normal(0, 0.1)
    tint = np.array([1 + warmth, 1 + rng.normal(0, 0.02), 1 - warmth])
    tint *= np.exp(rng.normal(0.08, 0.16))
    canvas = canvas * light[..., None].astype(np.float32) * tint.astype(np.float32)
    grey = canvas.mean(2, keepdims=True)
    canvas = grey + (canvas - grey) * rng.uniform(0.75, 1.12)
    softness = float(rng.choice([0.0, 0.3, 0.5, 0.9], p=[0.3, 0.3, 0.3, 0.1]))
    canvas = _blurred(canvas, size / 128 * softness)
    grain = rng.standard_normal(canvas.shape, np.float32)
    canvas = canvas + rng.uniform(0.005, 0.03) * grain
    return (np.clip(canvas, 0, 1) * 255).round().astype(np.uint8)


# The set.


def image_of(species: Species, seed: int, number: int) -> bytes:
    """JPEG file of quality 90 with a picture of the species; it depends on the arguments alone."""
    file = io.BytesIO()
    picture = draw(species, np.random.default_rng([seed, number]))
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return file.getvalue()


def images_of(species: Sequence[Species], each: int, seed: int) -> Iterator[bytes]:
    """JPEG files of `each` pictures of every species, one species after the other.

    They are numbered from 0 through all species, and drawn on all cores.
    """
    repeated = [one for one in species for _ in range(each)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _follow_parent) as pool:
        with _interrupts_held():
            files = pool.map(image_of, repeated, repeat(seed), range(len(repeated)), chunksize=16)
        yield from files


def demo_images(seed: int = DEMO_SEED) -> Iterator[bytes]:
    """JPEG files of the set's 1360 images in order, class by class, drawn on all cores."""
    return images_of(SPECIES, IMAGES_OF_A_SPECIES, seed)


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


def write_demo_set(folder: Path) -> None:
    """Draw the set and write `demo.tgz` and `imagelabels.mat` into a folder that exists.

    The archive's members are jpg/image_0001.jpg to jpg/image_1360.jpg; `labels` of the MATLAB
    file is a row of 1 to 17. Both have the same bytes every time on the same machine.
    """
    image_set = SETS["demo"]
    images = progress_bar(
        demo_images(), desc="drawing flowers", total=image_set.images, unit="image"
    )
    with (
        replacing(folder / image_set.archive) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in zip(image_set.image_names, images, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with replacing(folder / "imagelabels.mat") as temporary:
        temporary.write_bytes(_labels_file())


def _labels_file() -> bytes:
    """A MATLAB file of the labels; the text of its header, which holds a date, is replaced."""
    labels = np.repeat(np.arange(1, len(SPECIES) + 1), IMAGES_OF_A_SPECIES)[None]
    file = io.BytesIO()
    scipy.io.savemat(file, {"labels": labels.astype(np.uint8)})
    return b"MATLAB 5.0 MAT-file".ljust(116) + file.getvalue()[116:]
