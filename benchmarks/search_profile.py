"""Where a training spends its time: start-up, claims, training, records, closing.

    python -m benchmarks.search_profile [pictures] [--trials=20] [training arguments]

Computes the features of a copy of the pictures, and then runs the training script by one worker twice, each time in a
new process: with a new study, and again when nothing is left to do. Printed are seconds by the clock and of processor
time in each phase, without the phases that it calls.
"""

import argparse
import contextlib
import functools
import importlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT.parent / "shared" / "data" / "photos"

IMPORTS, OTHER = "imports", "all else"

PHASES = {
    "pictures, scores, features": (
        "commands.train:load_scored_images",
        "commands.train:load_head_input",
        "commands.train:make_problem",
    ),
    "study opened and described": (
        "commands.preparation:check_newest",
        "search.run:open_storage",
        "search.run:open_study",
        "search.run:_describe",
    ),
    "claims and suggestions": ("search.study:Claims.claim", "search.trials:suggest"),
    "training": ("search.workers:run_trials",),
    "reports and records": ("search.trials:_Run.on_epoch", "search.trials:_Run.on_fold", "search.trials:_Run.end"),
    "model of each best trial": ("search.best_models:BestModels.take",),
    "end of the search": (
        "search.best_models:BestModels.finish",
        "search.best_models:BestModels.optimism",
        "search.run:_link",
    ),
    "closing statistics": ("commands.train:show_results",),
}
"""Phase -> the functions that it consists of, each as module:name."""


class Stopwatch:
    """Adds up the time spent in each phase; while a phase calls another one, only the other one's time runs."""

    def __init__(self) -> None:
        self.spent = {phase: [0.0, 0.0] for phase in (IMPORTS, *PHASES, OTHER)}
        self.phases = [OTHER]
        self.last = time.perf_counter(), time.process_time()

    def note(self) -> None:
        """Count the time since the last note for the phase that runs."""
        now = time.perf_counter(), time.process_time()
        for index in range(2):
            self.spent[self.phases[-1]][index] += now[index] - self.last[index]
        self.last = now

    @contextlib.contextmanager
    def running(self, phase: str) -> Iterator[None]:
        self.note()
        self.phases.append(phase)
        try:
            yield
        finally:
            self.note()
            self.phases.pop()

    def timed(self, function: Callable, phase: str) -> Callable:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            with self.running(phase):
                return function(*arguments, **options)

        return call


def measure(argv: list[str]) -> None:
    """Run the training script in this process, which has imported nothing yet, and print the time of each phase."""
    watch = Stopwatch()
    watch.spent[OTHER][1] = time.process_time()  # the interpreter itself
    with watch.running(IMPORTS):
        training = importlib.import_module("custom_aesthetic.scripts.training")
        with importlib.import_module("custom_aesthetic.base.processes").imports():  # as the script does
            importlib.import_module("custom_aesthetic.commands.train")
    for phase, places in PHASES.items():
        for place in places:
            module, _, path = place.partition(":")
            *classes, name = path.split(".")
            owner = functools.reduce(getattr, classes, importlib.import_module(f"custom_aesthetic.{module}"))
            setattr(owner, name, watch.timed(getattr(owner, name), phase))
    with contextlib.redirect_stdout(io.StringIO()):
        training.run(argv)
    watch.note()
    for phase, (seconds, processor) in watch.spent.items():
        print(f"    {phase:32}{seconds:8.2f}{processor:10.2f}")
    seconds, processor = map(sum, zip(*watch.spent.values(), strict=True))
    print(f"    {'together':32}{seconds:8.2f}{processor:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = PHOTOS if PHOTOS.is_dir() else ROOT / "demo" / "images"
    parser.add_argument("pictures", nargs="?", type=Path, default=default)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--feature_extractor_model", default="efficientnet-lite2")
    arguments, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(arguments.pictures, Path(folder) / "images")
        command = [
            "-d=images",
            f"--feature_extractor_model={arguments.feature_extractor_model}",
            "--workers=1",
            *others,
        ]
        for n_trials, what in ((0, ""), (arguments.trials, "a new study"), (arguments.trials, "nothing to do")):
            if what:
                print(f"{what}, --trials={n_trials}; load before: {os.getloadavg()[0]:.1f}", flush=True)
            _run_measured([*command, f"--trials={n_trials}"], folder, is_shown=bool(what))


def _run_measured(command: list[str], folder: str, *, is_shown: bool) -> None:
    code = f"from benchmarks.search_profile import measure; measure({command!r})"
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    start = time.perf_counter()
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    if is_shown:
        print(f"    {'':32}{'seconds':>8}{'processor':>10}")
        print(shown.stdout, end="")
        print(f"    {'from start to end of the process':32}{time.perf_counter() - start:8.2f}", flush=True)


if __name__ == "__main__":
    main()
