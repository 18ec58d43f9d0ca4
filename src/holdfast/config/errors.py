"""What is wrong with a configuration file, all of it at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `line` counts from 1; None: the file as a whole."""

    line: int | None
    text: str


class ConfigurationError(Exception):
    """Every problem of one file. `str` gives one per line: `holdfast.toml:12: unknown key ...`."""

    def __init__(self, file: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(file, problems)
        self.file = file
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(
            f"{self.file}: {problem.text}" if problem.line is None else f"{self.file}:{problem.line}: {problem.text}"
            for problem in self.problems
        )
