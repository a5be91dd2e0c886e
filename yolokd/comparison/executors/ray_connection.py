"""Connecting to a Ray cluster, with an answer in seconds where there is none."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from yolokd.errors import UserError

INSTALL = "pip install 'yolokd[ray]'"
REACH, CONNECT = 3.0, 16.0  # seconds to reach an address, and to connect to the cluster there
PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except BaseException as error:
    sys.exit(f"yolokd: {type(error).__name__}: " + " ".join(str(error).split()))
"""


def connect(address: str) -> Any:
    """Return the package Ray, connected to a cluster.

    Args:
        address: auto, local (a cluster on this machine, for as long as this process), HOST:PORT or ray://HOST:PORT.

    Raises:
        UserError: Ray is not installed, nothing answers, or the cluster has another version of Ray or Python.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(f"Runs on a Ray cluster need the package Ray: {INSTALL}") from error
    if not ray.is_initialized():
        if address != "local":
            _check_address(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray raises many kinds
            raise UserError(f"Ray cannot be started with '{address}': {' '.join(str(error).split())}") from error
    return ray


def _check_address(address: str) -> None:
    """Connect from another process first: with a wrong address, Ray waits for minutes or ends the process."""
    if address != "auto":
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        try:
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        if parts.scheme != "ray" or not host or port is None:
            raise UserError(f"--ray expects auto, local, HOST:PORT or ray://HOST:PORT, got '{address}'.")
        try:
            socket.create_connection((host, port), timeout=REACH).close()
        except OSError as error:
            raise UserError(f"There is no Ray cluster at '{address}': {error.strerror or error}.") from error
    try:
        command = [sys.executable, "-c", PROBE, address]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONNECT, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"No Ray cluster answers at '{address}' within {CONNECT:.0f} s.") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        own = [line.removeprefix("yolokd: ") for line in lines if line.startswith("yolokd: ")]
        reason = (own or lines[-1:] or [f"exit code {done.returncode}"])[-1]
        if "grpc" in reason:
            reason = f"{reason} ({INSTALL})"
        raise UserError(f"There is no Ray cluster at '{address}' that can be used: {reason}")
