"""Frozen networks that turn pictures into features; `build_extractor` makes one from its name."""

from custom_aesthetic.extractors.build import build_extractor, build_extractors
from custom_aesthetic.extractors.protocol import VIEWS, FeatureExtractor

__all__ = ["VIEWS", "FeatureExtractor", "build_extractor", "build_extractors"]
