"""Draw the demo's pictures and score them by simulated comparisons with a known taste.

    python demo/make_demo.py            # writes demo/images/*/*.jpg and demo/images/scores.json

Each picture is drawn from six numbers (`Traits`) with a random generator of its own; the taste is a formula of
these numbers (`taste`). A simulated person compares pairs of pictures by this taste, but not always consistently.
The scores are estimated from these answers alone (Bradley-Terry), so they are as noisy as a person's scores.
The same seed gives the same scores everywhere, and the same bytes with the same version of Pillow.
"""

import argparse
import colorsys
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SEED = 7
SIZE = 256
SCALE = 2  # drawn larger and reduced: smooth edges
PICTURES_A_FOLDER = 38
COMPARISONS_A_PICTURE = 16
JPEG_QUALITY = 75
WARMTH_TO_HUE = ((0.0, 0.3, 0.5, 0.65, 1.0), (0.68, 0.52, 0.35, 0.14, -0.04))  # blue, teal, green, yellow, red

SUBJECT_TASTE = {"landscapes": 0.8, "flowers": 0.5, "shapes": -0.3, "patterns": -1.0}

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Traits:
    """The properties that a picture is drawn from; each is 0 ... 1."""

    warmth: float
    saturation: float
    calm: float
    sharpness: float
    noise: float
    brightness: float


@dataclass(frozen=True)
class Picture:
    """One picture of the demo before it is drawn."""

    relative_path: str
    index: int
    traits: Traits


def taste(picture: Picture) -> float:
    """Return how much the simulated person likes a picture: calm, clean, sharp and warm; landscapes over patterns."""
    traits = picture.traits
    subject = SUBJECT_TASTE[Path(picture.relative_path).parent.name]
    clean = 1.5 * traits.sharpness - 2.5 * traits.noise
    return 2.0 * traits.calm + 1.2 * traits.warmth + 1.0 * traits.saturation + clean + subject


# --- drawing ---------------------------------------------------------------------------------------------------


def colour(generator: np.random.Generator, traits: Traits, value: float) -> Colour:
    """Return a colour of the palette: its hue follows the warmth (0 blue ... 1 red), its lightness is `value`."""
    hue = float(np.interp(traits.warmth, *WARMTH_TO_HUE)) + generator.normal(0.0, 0.04)
    saturation = 0.15 + 0.75 * traits.saturation + generator.normal(0.0, 0.06)
    lightness = min(max(value * (0.55 + 0.45 * traits.brightness), 0.0), 1.0)
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), lightness)
    return round(red * 255), round(green * 255), round(blue * 255)


def gradient(top: Colour, bottom: Colour) -> Image.Image:
    """Return a canvas that fades from one colour to another."""
    share = np.linspace(0.0, 1.0, SIZE * SCALE)[:, None, None]
    rows = np.array(top) * (1 - share) + np.array(bottom) * share
    return Image.fromarray(np.repeat(rows.round().astype(np.uint8), SIZE * SCALE, axis=1))


def draw_landscape(generator: np.random.Generator, traits: Traits) -> Image.Image:
    """Draw sky, sun and ridges behind each other; more ridges and trees if it is not calm."""
    side = SIZE * SCALE
    image = gradient(colour(generator, traits, 0.6), colour(generator, traits, 1.0))
    draw = ImageDraw.Draw(image)
    x, y, radius = generator.uniform(0.15, 0.85) * side, generator.uniform(0.1, 0.4) * side, generator.uniform(15, 50)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour(generator, traits, 1.3))
    n_ridges = 2 + round(4 * (1 - traits.calm))
    for i in range(n_ridges):
        base = side * (0.45 + 0.5 * i / n_ridges)
        waves = [
            (generator.uniform(5, 45) * (1.3 - traits.calm), generator.uniform(0.5, 4), generator.uniform(0, 6))
            for _ in range(3)
        ]
        edge = [
            (column, base + sum(height * math.sin(turns * column / side * 6 + phase) for height, turns, phase in waves))
            for column in range(0, side + 8, 8)
        ]
        draw.polygon([*edge, (side, side), (0, side)], fill=colour(generator, traits, 0.75 - 0.55 * i / n_ridges))
        for _ in range(round(14 * (1 - traits.calm) ** 1.5)):
            column, foot = edge[generator.integers(len(edge))]
            height = generator.uniform(15, 60)
            tree = [(column - height / 4, foot + 8), (column, foot - height), (column + height / 4, foot + 8)]
            draw.polygon(tree, fill=colour(generator, traits, 0.25))
    return image


def draw_flowers(generator: np.random.Generator, traits: Traits) -> Image.Image:
    """Draw flowers on a plain background: one large flower if it is calm, else many."""
    side = SIZE * SCALE
    image = gradient(colour(generator, traits, 0.35), colour(generator, traits, 0.55))
    draw = ImageDraw.Draw(image)
    n_flowers = 1 + round(24 * (1 - traits.calm) ** 1.5)
    for _ in range(n_flowers):
        x, y = generator.uniform(0.2, 0.8, size=2) * side
        reach = side * generator.uniform(0.8, 1.2) * 0.36 / n_flowers**0.4
        n_petals, turn, fill = int(generator.integers(5, 12)), generator.uniform(0, 6), colour(generator, traits, 1.1)
        draw.line(
            (x, y, x + generator.normal(0, 20), side),
            fill=colour(generator, traits, 0.2),
            width=max(3, int(reach / 14)),
        )
        for k in range(n_petals):
            angle = turn + 2 * math.pi * k / n_petals
            along, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
            steps = np.linspace(0, 2 * math.pi, 24)
            points = [
                (x, y) + along * reach * (0.5 + 0.5 * math.cos(step)) + across * reach * 1.2 / n_petals * math.sin(step)
                for step in steps
            ]
            draw.polygon([(float(a), float(b)) for a, b in points], fill=fill, outline=colour(generator, traits, 0.8))
        heart = reach * 0.22
        draw.ellipse((x - heart, y - heart, x + heart, y + heart), fill=colour(generator, traits, 0.45))
    return image


def draw_shapes(generator: np.random.Generator, traits: Traits) -> Image.Image:
    """Draw circles, boxes and triangles: few and large ones if it is calm, else many small ones."""
    side = SIZE * SCALE
    image = gradient(colour(generator, traits, 0.9), colour(generator, traits, 0.7))
    draw = ImageDraw.Draw(image)
    n_shapes = 3 + round(57 * (1 - traits.calm) ** 2)
    for _ in range(n_shapes):
        x, y = generator.uniform(0.1, 0.9, size=2) * side
        reach = side * generator.uniform(0.3, 0.6) / n_shapes**0.5
        fill, kind = colour(generator, traits, generator.uniform(0.15, 1.2)), int(generator.integers(3))
        if kind == 0:
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)
        elif kind == 1:
            draw.rectangle((x - reach, y - reach * 0.6, x + reach, y + reach * 0.6), fill=fill)
        else:
            draw.regular_polygon((x, y, reach), 3, rotation=int(generator.integers(360)), fill=fill)
    return image


def draw_pattern(generator: np.random.Generator, traits: Traits) -> Image.Image:
    """Fill the frame with stripes, rings, a weave or clouds: wide ones if it is calm, else narrow ones."""
    side = SIZE * SCALE
    rows, columns = np.mgrid[0:side, 0:side] / side
    waves, kind, angle = 3 + 32 * (1 - traits.calm) ** 1.5, int(generator.integers(4)), generator.uniform(0, math.pi)
    along = rows * math.sin(angle) + columns * math.cos(angle)
    across = rows * math.cos(angle) - columns * math.sin(angle)
    if kind == 0:
        field = np.sin(2 * math.pi * waves * along)
    elif kind == 1:
        x, y = generator.uniform(0.2, 0.8, size=2)
        field = np.sin(2 * math.pi * waves * np.hypot(rows - y, columns - x))
    elif kind == 2:
        field = np.sin(2 * math.pi * waves * along) * np.sin(2 * math.pi * waves * across)
    else:
        cells = int(waves) + 2
        clouds = Image.fromarray(generator.uniform(0, 255, size=(cells, cells)).astype(np.uint8))
        field = np.asarray(clouds.resize((side, side), Image.Resampling.BICUBIC)) / 127.5 - 1
    share = (0.5 + 0.5 * np.clip(field * 1.5, -1, 1))[:, :, None]
    dark, light = np.array(colour(generator, traits, 0.35)), np.array(colour(generator, traits, 1.0))
    return Image.fromarray((dark * (1 - share) + light * share).round().astype(np.uint8))


DRAWERS: dict[str, Callable[[np.random.Generator, Traits], Image.Image]] = {
    "landscapes": draw_landscape,
    "flowers": draw_flowers,
    "shapes": draw_shapes,
    "patterns": draw_pattern,
}


def draw_picture(picture: Picture, seed: int) -> Image.Image:
    """Draw one picture, then blur it and add noise according to its traits."""
    generator = np.random.default_rng([seed, 1, picture.index])
    traits = picture.traits
    image = DRAWERS[Path(picture.relative_path).parent.name](generator, traits)
    image = image.filter(ImageFilter.GaussianBlur(4.5 * SCALE * (1 - traits.sharpness) ** 2)).reduce(SCALE)
    grain = generator.normal(0.0, 1.0, size=(SIZE, SIZE, 1)) * 32 * traits.noise**2
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).round().astype(np.uint8))


# --- the pictures and their scores -----------------------------------------------------------------------------


def plan_pictures(seed: int) -> list[Picture]:
    """Return all pictures of the demo with their traits, folder by folder."""
    generator = np.random.default_rng([seed, 0])
    names = [f"{folder}/{folder[:-1]}_{k:02d}.jpg" for folder in DRAWERS for k in range(1, PICTURES_A_FOLDER + 1)]
    return [Picture(name, index, Traits(*generator.uniform(size=6).tolist())) for index, name in enumerate(names)]


def compare(tastes: np.ndarray, seed: int) -> np.ndarray:
    """Return simulated answers, (n_comparisons, 2) of winner and loser: the preferred picture usually wins."""
    generator = np.random.default_rng([seed, 2])
    n_pictures = len(tastes)
    rounds = [generator.permutation(n_pictures).reshape(-1, 2) for _ in range(COMPARISONS_A_PICTURE)]
    pairs = np.concatenate(rounds)
    first_wins = generator.uniform(size=len(pairs)) < 1 / (
        1 + np.exp(-2.0 * (tastes[pairs[:, 0]] - tastes[pairs[:, 1]]))
    )
    return np.where(first_wins[:, None], pairs, pairs[:, ::-1])


def bradley_terry_scores(answers: np.ndarray, n_pictures: int) -> np.ndarray:
    """Return the scores, (n_pictures,), that make the answers most likely, weakly pulled to 0; by gradient ascent."""
    scores = np.zeros(n_pictures)
    for _ in range(3000):
        surprise = 1 / (1 + np.exp(scores[answers[:, 0]] - scores[answers[:, 1]]))
        slope = np.bincount(answers[:, 0], surprise, n_pictures) - np.bincount(answers[:, 1], surprise, n_pictures)
        scores += 0.1 * (slope - 0.1 * scores)
    return scores


def score_file(pictures: list[Picture], seed: int) -> str:
    """Return the content of the score file of these pictures, as the A/B scorer writes it."""
    answers = compare(np.array([taste(picture) for picture in pictures]), seed)
    scores = bradley_terry_scores(answers, len(pictures))
    records = {
        picture.relative_path: {
            "relative_filepath": picture.relative_path,
            "score": round(float(score), 3),
            "comparisons": int((answers == picture.index).sum()),
        }
        for picture, score in zip(pictures, scores, strict=True)
    }
    return json.dumps({"ImageRecords": records, "Metadata": {}}, indent=1) + "\n"


def write_demo(folder: Path, seed: int) -> None:
    """Draw all pictures into `folder` and write its `scores.json`."""
    pictures = plan_pictures(seed)
    for picture in pictures:
        path = folder / picture.relative_path
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(picture, seed).save(path, quality=JPEG_QUALITY)
    (folder / "scores.json").write_text(score_file(pictures, seed), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the demo's pictures and score them.", allow_abbrev=False)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "images", help="folder for the pictures")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed gives other pictures and scores")
    arguments = parser.parse_args()
    write_demo(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
