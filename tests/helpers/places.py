"""Where things lie that tests read, so that a test can move without counting folders."""

from __future__ import annotations

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]
"""The checkout."""
PARITY = ROOT / "tests/fixtures/parity"
"""Inputs and outputs of official codes."""
OLD_RESULTS = ROOT / "tests/fixtures/results/schema-1"
"""Results of the first format."""
SHARED = ROOT.parent / "shared"
"""Samples of official data beside the checkout; tests that read them are skipped where they are not."""
