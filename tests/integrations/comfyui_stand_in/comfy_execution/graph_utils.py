"""The mark that a node returns in the place of an output whose followers are not to be executed."""


class ExecutionBlocker:
    def __init__(self, message: str | None) -> None:
        self.message = message
