"""Connecting to a cluster that is not there, does not answer or does not fit."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.helpers.fake_ray import FakeRay
from yolokd.comparison.executors import ray_connection
from yolokd.comparison.executors.ray_connection import connect
from yolokd.errors import UserError


@pytest.mark.parametrize("address", ["nowhere", "http://a:1", "a:b", "ray://", ":6379"])
def test_connect__an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    with pytest.raises(UserError, match="--ray expects auto, local, HOST:PORT or ray://HOST:PORT"):
        connect(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_connect__nothing_at_the_address(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    with socket.socket() as bound:  # not listening
        bound.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(UserError, match=f"There is no Ray cluster at '{address}': Connection refused"):
            connect(address)


def test_connect__something_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    monkeypatch.setattr(ray_connection, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(ray_connection, "CONNECT", 0.5)
    with pytest.raises(UserError, match="No Ray cluster answers at 'auto' within"):
        connect("auto")


def test_connect__another_version_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    words = "Version mismatch: The cluster was started with: Ray: 2.40.0 Python: 3.11.4"
    monkeypatch.setattr(ray_connection, "PROBE", f"import sys; sys.exit('yolokd: RuntimeError: {words}')")
    with pytest.raises(UserError) as caught:
        connect("auto")
    assert str(caught.value) == f"There is no Ray cluster at 'auto' that can be used: RuntimeError: {words}"


def test_connect__without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"need the package Ray: pip install 'yolokd\[ray\]'"):
        connect("auto")
