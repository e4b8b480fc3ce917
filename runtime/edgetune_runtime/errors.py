"""The one family of errors that edgetune raises for what a user can put right.

Every message says what came, what was expected and what to do next, in one line.
"""


class EdgetuneError(Exception):
    """Base of all errors that a user can act on. The CLI prints it as one line and exits with 1."""


class DataError(EdgetuneError):
    """Rows of text or labels that cannot be used."""


class TaskError(EdgetuneError):
    """A task file that is damaged, unknown, or made for another backbone."""


class BundleError(EdgetuneError):
    """A bundle that is damaged, incomplete, or of another format version."""


class BackboneError(EdgetuneError):
    """A model that cannot be loaded, trained on or exported."""


class DeviceError(EdgetuneError):
    """A device or execution provider that is not there."""


class AccuracyDropError(EdgetuneError):
    """An exported precision lost more accuracy than the user allows."""


class MissingPackageError(EdgetuneError):
    """A package of an extra that is not installed.

    Args:
        package: what could not be imported.
        extra: the extra of edgetune that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package '{package}' is not installed and this command needs it: pip install 'edgetune[{extra}]'"
        )
