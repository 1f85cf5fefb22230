"""What is wrong with a configuration, in sentences a person can act on."""

__all__ = ["ConfigError"]


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has one sentence for each thing wrong."""

    def __init__(self, *problems: str) -> None:
        super().__init__("bad configuration:\n" + "\n".join(f"  - {line}" for line in problems))
        self.problems = problems
