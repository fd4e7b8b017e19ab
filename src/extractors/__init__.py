"""Feature extractors: frozen networks that turn pictures into feature vectors."""
