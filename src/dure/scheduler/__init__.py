"""Places pods on nodes: filters and scores over arrays, one binding loop."""

from dure.scheduler.service import Scheduler

__all__ = ["Scheduler"]
