"""The built-in reconcilers, one file a kind; `run_controllers` runs them all."""

from dure.controllers.run import run_controllers
from dure.controllers.shared import Context, Informers

__all__ = ["Context", "Informers", "run_controllers"]
