"""What is wrong with settings, model, index, language model and machine, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.doctor.check import Check, Severity
    from m3rag.doctor.diagnosis import diagnose
    from m3rag.doctor.origins import Origin, origins

__all__ = ["Check", "Origin", "Severity", "diagnose", "origins"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Check": "m3rag.doctor.check",
        "Severity": "m3rag.doctor.check",
        "Origin": "m3rag.doctor.origins",
        "origins": "m3rag.doctor.origins",
        "diagnose": "m3rag.doctor.diagnosis",
    },
)
