"""The training that others are compared with."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_training import losses_and_weights


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The losses and weights of an uninterrupted training, as `learn` of the module does it."""
    out = tmp_path_factory.mktemp("whole")
    request.module.learn(out)
    return losses_and_weights(out)
