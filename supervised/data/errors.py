"""The one error of the loaders."""

from os import PathLike


class DataError(ValueError):
    """Data that cannot be used, in one line: the file, what is wrong with it, what to do."""

    def __init__(self, file: str | PathLike[str], problem: str, remedy: str):
        self.file, self.problem, self.remedy = str(file), problem, remedy
        super().__init__(f"{self.file}: {problem}; {remedy}")
