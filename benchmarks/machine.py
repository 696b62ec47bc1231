"""The runtime's own word on who measured: results carry it and are named by it."""

from kedge_runtime.checks.hardware import identity, slug

__all__ = ["identity", "slug"]
