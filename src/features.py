"""Features of images."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureBlock:
    extractor: str
    hidden_state: int
    view: str
    start: int
    stop: int
