"""Ray Data: items are listed by one task, made into parts by actors, and counted here as they are done.

Each block is one item, so a machine that dies costs the items that it was working on; Ray gives them to the others.
What passes through Ray are names: pictures are read where they are scored, so neither the program that started the run
nor Ray's object store holds any.
"""

import contextlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.exceptions
import torch

import custom_aesthetic
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import n_cores
from custom_aesthetic.base.text import printable
from custom_aesthetic.cluster.items import Item
from custom_aesthetic.cluster.listing import input_folder, list_items
from custom_aesthetic.cluster.parts import Outcome, PartScorer
from custom_aesthetic.cluster.places import open_place
from custom_aesthetic.heads.model_file import Model
from custom_aesthetic.heads.scorer import Scorer

LOCAL, CLIENT = "local", "ray://"

OBJECT_STORE_BYTES = 128 * 2**20
"""Ray's memory for what passes between processes of this machine; that is names alone."""

BATCH_CPU, BATCH_GPU = 8, 64


@dataclass(frozen=True)
class ClusterWork:
    """What is to be scored, by what, and to where; it travels to every actor."""

    source: str
    target: str
    model: Model
    n_pictures: int
    """The usual number of pictures in a part."""
    device: str = "auto"
    extractor_model: str | None = None
    offline: bool = False
    with_features: bool = False
    open_scorer: "Callable[[ClusterWork, str], Scorer] | None" = None
    """Returns the scorer of an actor on a device; None: that of the model."""

    def scorer(self, device: str) -> Scorer:
        """Return the scorer of an actor on this device."""
        if self.open_scorer is not None:
            return self.open_scorer(self, device)
        return Scorer(self.model, device=device, extractor_model=self.extractor_model, offline=self.offline)


@dataclass(frozen=True)
class Actors:
    """The actors of a run."""

    n_actors: int
    n_gpus: int
    """GPUs of each, 0 or 1."""
    n_cpus: int
    """Cores of each: its threads decode pictures."""


class PartMaker:
    """An actor: makes parts of the items it is given."""

    def __init__(self, work: ClusterWork, actors: Actors) -> None:
        torch.set_num_threads(1)
        device = work.device if actors.n_gpus else "cpu"
        self._mistake: Outcome | None = None
        try:
            self._maker = PartScorer(
                work.scorer(device),
                open_place(input_folder(work.source)),
                open_place(work.target),
                n_threads=actors.n_cpus,
                batch_size=BATCH_GPU if actors.n_gpus else BATCH_CPU,
                with_features=work.with_features,
            )
        except UserError as error:  # raised here, it would be the end of an actor, which Ray tells in many lines
            self._mistake = Outcome(mistake=str(error))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": [pickle.dumps(self._make(pickle.loads(item))) for item in batch["item"]]}

    def _make(self, item: Item) -> Outcome:
        return self._mistake or self._maker.make(item)


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to Ray within the block, or start it on this machine; UserError if there is none at the address.

    A program that is connected already stays so.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a picture tool reports to nobody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        _connect(address)
        yield
    finally:  # also where only a part of Ray had started
        ray.shutdown()


def _connect(address: str) -> None:
    try:
        ray.init(address, log_to_driver=False, logging_level="CRITICAL", **_of_this_program(address))
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise UserError(
            f"--ray_address={address}: no Ray can be reached ({reason}); check the address, and where the cluster asks "
            "for a token, the environment variables RAY_AUTH_MODE and RAY_AUTH_TOKEN"
        ) from None


def _of_this_program(address: str) -> dict[str, Any]:
    """Return how Ray's processes find this package: here by its path, elsewhere by a copy that Ray sends them."""
    package = Path(custom_aesthetic.__file__).parent
    if address != LOCAL:
        return {"runtime_env": {"py_modules": [str(package)]}}
    paths = os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH")]))
    return {
        "runtime_env": {"env_vars": {"PYTHONPATH": paths}},
        "num_cpus": n_cores(),
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }


def outcomes(work: ClusterWork, address: str) -> Iterator[Outcome]:
    """Yield what became of each item, in the order in which they are done; within `connected`."""
    try:
        if address.startswith(CLIENT):
            # Through a client, Ray Data runs on the cluster, and what it yields comes when all is done.
            everything = ray.remote(num_cpus=0)(lambda: list(_outcomes(work)))
            yield from ray.get(everything.remote())
        else:
            yield from _outcomes(work)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        reason = printable(" ".join(str(error).split()))[:500]
        raise UserError(f"Ray gave up ({reason}); the same command goes on with the parts that are missing") from None


def _outcomes(work: ClusterWork) -> Iterator[Outcome]:
    actors = choose_actors(ray.nodes(), work.device)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # an item is a block
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    source, n_pictures = work.source, work.n_pictures

    def listed(_: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for item in list_items(source, n_pictures):
            yield {"item": [pickle.dumps(item)]}

    parts = (
        ray.data.from_items([{"source": 0}])
        .map_batches(listed, num_cpus=0)
        .map_batches(
            PartMaker,
            batch_size=1,
            fn_constructor_args=(work, actors),
            num_cpus=actors.n_cpus,
            num_gpus=actors.n_gpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors.n_actors, initial_size=actors.n_actors),
        )
    )
    for row in parts.iter_rows():
        yield pickle.loads(row["outcome"])


def choose_actors(nodes: list[dict[str, Any]], device: str) -> Actors:
    """Return one actor for each GPU of Ray's living nodes, with its share of their cores; without GPUs one a core.

    UserError if the device asked for is not there.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    n_gpus = sum(int(found.get("GPU", 0)) for found in resources)
    if device != "cpu" and n_gpus:
        shares = [int(found.get("CPU", 1) // found["GPU"]) for found in resources if found.get("GPU", 0) >= 1]
        return Actors(n_gpus, 1, max(1, min(shares)))
    if device not in ("auto", "cpu"):
        raise UserError(f"--device={device}: no machine of this Ray cluster has a GPU; use auto or cpu")
    n_cpus = sum(int(found.get("CPU", 0)) for found in resources)
    return Actors(max(1, n_cpus), 0, 1)
