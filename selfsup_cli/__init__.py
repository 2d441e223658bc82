"""Learn visual representations without labels, and see what was learned.

`pretrain`, `probe`, `retrieve` and `transfer` are the commands of that name as functions;
`load_backbone` gives the network of a run. They are imported when they are first used, because
torch takes seconds.
"""

from __future__ import annotations

from selfsup_cli.version import __version__

TYPE_CHECKING = False  # importing `typing` would cost completion a third of its time
if TYPE_CHECKING:
    from typing import Any

    from selfsup_cli.jobs.api import load_backbone, pretrain, probe, retrieve, transfer

__all__ = ["__version__", "load_backbone", "pretrain", "probe", "retrieve", "transfer"]


def __getattr__(name: str) -> Any:
    if name in __all__[1:]:
        from selfsup_cli.jobs import api

        return getattr(api, name)
    raise AttributeError(f"module 'selfsup_cli' has no attribute '{name}'")
