"""Devices that Ultralytics can train on."""

from __future__ import annotations

from typing import Any

import torch
from ultralytics.utils.torch_utils import select_device

from yolokd.errors import UserError


def check_device(device: Any) -> None:
    """Raise `UserError` unless Ultralytics can use the device; None leaves the choice to it."""
    if device is None:
        return
    try:
        chosen = select_device(device, verbose=False)
    except Exception as error:  # whatever a driver, or a device that is no text, may lead to
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "unknown device")
        raise UserError(f"The device '{device}' cannot be used: {reason} Give cpu, mps, or GPU numbers.") from error
    if not isinstance(chosen, torch.device):  # tpu, vulkan and intel:… are for exports
        raise UserError(f"The device '{device}' cannot train or run a checkpoint. Give cpu, mps, or GPU numbers (0).")
    if str(device).lower().startswith("mps") and chosen.type != "mps":  # Ultralytics would take the CPU in silence
        raise UserError(f"The device '{device}' is not there. Give cpu, or GPU numbers.")
