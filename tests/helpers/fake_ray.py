"""Stands for the package Ray: a cluster of one node, on which everything is executed at once."""

from __future__ import annotations

from typing import Any

from yolokd.comparison.executors import ray_node


class Remote:
    """What `ray.remote` returns: it executes at once."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def options(self, **_: Any) -> Remote:
        return self

    def remote(self, *words: Any) -> Any:
        made = self.target(*words)
        return Handle(made) if isinstance(made, ray_node.Progress) else made


class Handle:
    """An actor."""

    def __init__(self, actor: ray_node.Progress) -> None:
        self.add, self.take = Remote(actor.add), Remote(actor.take)


class FakeRay:
    """Stands for the package: one node, on which everything ends at once."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, resources: dict[str, float] | None = None) -> None:
        self.resources = resources or {"CPU": 4.0}
        self.canceled: list[Any] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: Any) -> None:
        pass

    def nodes(self) -> list[dict[str, Any]]:
        node = {"NodeID": "0123456789", "NodeManagerHostname": "big", "NodeManagerAddress": "10.0.0.1"}
        return [{**node, "Alive": True, "Resources": self.resources}, {**node, "Alive": False, "Resources": {}}]

    def get_runtime_context(self) -> Any:
        return self

    def get_node_id(self) -> str:
        return "0123456789"

    def remote(self, target: Any) -> Remote:
        return Remote(target)

    def put(self, value: Any) -> Any:
        return value

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        if isinstance(reference, Exception):
            raise reference
        return reference

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return ([], references) if references == ["queued"] else (references, [])

    def cancel(self, reference: Any, force: bool) -> None:
        self.canceled.append((reference, force))
