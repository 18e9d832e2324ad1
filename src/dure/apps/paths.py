"""Places outside the data folder."""

from __future__ import annotations

import os
from pathlib import Path


def user_kubeconfig() -> Path:
    """`$KUBECONFIG`'s first file, else ~/.kube/config."""
    named = os.environ.get("KUBECONFIG", "").split(":")[0]
    return Path(named) if named else Path.home() / ".kube/config"
