"""hilcl: hardware-in-the-loop Contrastive Learning on boards of adjustable resistors."""

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hilcl.board import Board, Contrast, Response
    from hilcl.certificate import Certificate
    from hilcl.device_range import DeviceRange
    from hilcl.errors import HilclError
    from hilcl.learning import ContrastiveLearning, RobbinsMonro
    from hilcl.network import Network
    from hilcl.potentiometer import Potentiometer
    from hilcl.task import Task
    from hilcl.training import BestState, Checkpoint, Step, Stopping, stop_early, train

__all__ = [
    "BestState",
    "Board",
    "Certificate",
    "Checkpoint",
    "Contrast",
    "ContrastiveLearning",
    "DeviceRange",
    "HilclError",
    "Network",
    "Potentiometer",
    "Response",
    "RobbinsMonro",
    "Step",
    "Stopping",
    "Task",
    "stop_early",
    "train",
]

# In a source checkout drivers/, sim_backend/ and calibration/ lie beside this folder, not inside it. Finding them
# there keeps `import hilcl` whole when the checkout itself is on the path (python -c, python -m in its root).
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "sim_backend" / "__init__.py").is_file() and (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))

# Names are imported when first used, so that the command line starts at once.
_HOME = {
    "BestState": "training",
    "Board": "board",
    "Certificate": "certificate",
    "Checkpoint": "training",
    "Contrast": "board",
    "ContrastiveLearning": "learning",
    "DeviceRange": "device_range",
    "HilclError": "errors",
    "Network": "network",
    "Potentiometer": "potentiometer",
    "Response": "board",
    "RobbinsMonro": "learning",
    "Step": "training",
    "Stopping": "training",
    "Task": "task",
    "stop_early": "training",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("hilcl")
    if name in _HOME:
        return getattr(import_module(f"hilcl.{_HOME[name]}"), name)
    raise AttributeError(f"module 'hilcl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
