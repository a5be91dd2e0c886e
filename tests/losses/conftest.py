from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    """Let every test see the same random numbers at every run."""
    torch.manual_seed(0)
