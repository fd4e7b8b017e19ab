"""The interactive view: from its arguments to Spotlight."""

import logging
import tempfile
from pathlib import Path

import torch
from loguru import logger as spotlight_log

from custom_aesthetic.base.machine import choose_device
from custom_aesthetic.base.processes import folder_prefix, imports
from custom_aesthetic.commands.judging import load_judged_pictures
from custom_aesthetic.extractors import build_extractors
from custom_aesthetic.features.precomputed import open_table, without_extractor
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.features.views import load_asked_features
from custom_aesthetic.report.judged_pictures import JudgedPictures, standing_lines
from custom_aesthetic.settings.analysis import ViewerArguments
from custom_aesthetic.settings.training import FeatureSettings

log = logging.getLogger(__name__)


def view(arguments: ViewerArguments) -> None:
    """Write the table if the arguments ask for it, then serve Spotlight until it is stopped."""
    spotlight_log.disable("renumics.spotlight")  # its import warns about analysers that this program does not use
    with imports():
        from custom_aesthetic.commands.spotlight import (
            add_expected_scores,
            convert_pictures,
            for_the_page,
            make_frame,
            save_frame,
            show,
            worst_first,
        )

    device = choose_device(arguments.device.device)
    settings = arguments.features
    if settings.features is not None:
        settings = without_extractor(settings)
    pictures = load_judged_pictures(arguments.images, arguments.model_scores, settings, device)
    for line in standing_lines(pictures):
        log.info("%s", line)
    frame = worst_first(make_frame(pictures, pictures.features or _features(pictures, settings, device)))
    issues = add_expected_scores(frame)
    if arguments.viewer.save is not None:
        save_frame(frame.sort_index(), Path(arguments.viewer.save))
    with tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True) as folder:
        convert_pictures(frame, Path(folder))
        show(for_the_page(frame), issues, no_browser=arguments.viewer.no_browser, port=arguments.viewer.port)


def _features(pictures: JudgedPictures, settings: FeatureSettings, device: torch.device) -> FeatureTable:
    """Return the features of the pictures, from the table or the extractor in the arguments."""
    table = open_table(pictures.directory, settings)
    if table is not None:
        missing = set(table.missing(pictures.paths))
        return table.load([path for path in pictures.paths if path not in missing])
    extractors = build_extractors(settings.feature_extractor_model, device, settings.offline)
    return load_asked_features(pictures.directory, pictures.paths, extractors, settings)
