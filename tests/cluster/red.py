"""A model of the mean red of a picture, and inputs made of pictures of one colour, for the tests of the cluster."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from custom_aesthetic import Scorer
from custom_aesthetic.cluster.listing import input_folder, list_items
from custom_aesthetic.cluster.parts import Outcome, PartScorer
from custom_aesthetic.cluster.places import open_place
from custom_aesthetic.heads.domain import find_domain, to_text
from custom_aesthetic.heads.model_file import Model, load_model, save_model
from custom_aesthetic.heads.predictor import from_layers
from tests.mean_colour import MeanColour

if TYPE_CHECKING:
    from custom_aesthetic.cluster.engine import ClusterWork


def red_model(file: Path) -> Model:
    """Write and return a model with the mean red, 0...10, as score, and a fifth of it as sigma."""
    weights = torch.tensor([[10 / 255, 0, 0], [-2 / 255, 0, 0]])
    domain = find_domain(torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).numpy() * 255)
    assert domain is not None
    metadata = {"feature_extractor_model": "mean-colour", "domain": to_text(domain)}
    layers = [(torch.eye(3), torch.zeros(3)), (torch.eye(3), torch.zeros(3)), (weights, torch.zeros(2))]
    save_model(file, from_layers(layers), metadata)
    return load_model(file)


def red_scorer(model: Model, *, seconds: float = 0.0) -> Scorer:
    """Return the scorer of the model, which takes that long for each batch."""
    scorer = Scorer(model, device="cpu")
    scorer._extractors = [MeanColour(seconds=lambda _: seconds)]
    return scorer


def open_red(work: "ClusterWork", _: str) -> Scorer:
    """Return the scorer of an actor."""
    return red_scorer(work.model)


def open_slow_red(work: "ClusterWork", _: str) -> Scorer:
    return red_scorer(work.model, seconds=0.05)


def png(red: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 7, 255 - red)).save(stream, "PNG")
    return stream.getvalue()


def files_of(n_pictures: int, broken: tuple[int, ...] = ()) -> dict[str, bytes]:
    """Return relative path -> content: pictures redder by number, some of them broken."""
    return {f"{i % 3}/{i:04}.png": b"no picture" if i in broken else png(i % 256) for i in range(n_pictures)}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return a WebDataset shard: each picture, and a text beside it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, content in files.items():
            name = path.replace("/", "_")
            for member_name, data in ((name, content), (f"{name.partition('.')[0]}.txt", b"words")):
                member = tarfile.TarInfo(member_name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def write_table(file: Path, files: Mapping[str, bytes], *, key: str = "key", picture: str = "bytes") -> None:
    """Write pictures as parquet, ten in a row group."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({key: list(files), picture: list(files.values())}), file, row_group_size=10)


def rows_of(folder: Path | str, column: str = "relative_path") -> dict[str, dict[str, object]]:
    """Return name -> row of all parts; each name must be there once."""
    rows = pq.read_table(folder).to_pylist()
    found = {row.pop(column): row for row in rows}
    assert len(found) == len(rows)
    return found


def make_parts(
    model: Model, where: Path | str, target: Path | str, *, n_pictures: int = 20, **options: Any
) -> list[Outcome]:
    """Make all parts of an input in this process."""
    usual = {"n_threads": 1, "batch_size": 4, "with_features": False}
    maker = PartScorer(
        red_scorer(model), open_place(input_folder(str(where))), open_place(str(target)), **(usual | options)
    )
    return [maker.make(item) for item in list_items(str(where), n_pictures)]
