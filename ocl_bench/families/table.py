"""The bundled families by name. Their adapters need torch, which what only sums up rows does not import."""

from __future__ import annotations

from .base import Family
from .contact import CONTACT
from .discovery import DISCOVERY
from .dynamics import DYNAMICS
from .knn import KNN
from .probed_detection import DETECTION
from .reasoning import REASONING
from .recognition import RECOGNITION
from .segmentation import SEGMENTATION
from .video import VIDEO

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (DISCOVERY, DETECTION, SEGMENTATION, RECOGNITION, KNN, VIDEO, DYNAMICS, CONTACT, REASONING)
}
"""The bundled families by name. Installed packages can add others through entry points `ocl_bench.families`."""
