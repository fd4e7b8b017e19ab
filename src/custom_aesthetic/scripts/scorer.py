"""Score all pictures in a folder by a trained model; list, copy, link, move or rate the best ones."""

from collections.abc import Sequence
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import require
from custom_aesthetic.base.processes import imports
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.console import run_script
from custom_aesthetic.settings.scorers import ClusterSettings, FolderArguments


def run(argv: Sequence[str]) -> None:
    """Run the folder scorer; raise UserError for mistakes the user can correct."""
    arguments, _ = parse_arguments(FolderArguments, argv, description="Score the pictures in a folder.")
    if arguments.cluster.engine == "ray":
        from custom_aesthetic.cluster.job import score_on_cluster

        score_on_cluster(arguments)
        return
    if arguments.cluster != ClusterSettings():
        raise UserError("--ray_address, --part_pictures and --with_features need --engine=ray; add it")
    if arguments.action.undo is None and arguments.folder.directory is not None:
        from custom_aesthetic.base.files import existing_file
        from custom_aesthetic.features.table_files import find_table
        from custom_aesthetic.scores.score_files import check_directory

        check_directory(Path(arguments.folder.directory))
        if arguments.folder.features is not None:
            find_table(Path(arguments.folder.directory), arguments.folder.features)
        if arguments.folder.model is not None:
            existing_file(Path(arguments.folder.directory), arguments.folder.model, "--model")
    if arguments.service.serve:
        require("starlette", "serve", "--serve")
        from custom_aesthetic.integrations.http_service import serve_model

        serve_model(arguments)
        return
    with imports():
        from custom_aesthetic.commands.score_folder import score_folder

    score_folder(arguments)


def main() -> int:
    """Run the script on the command line's arguments; return its exit code."""
    return run_script(run)
