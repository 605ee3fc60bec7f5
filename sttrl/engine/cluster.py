"""The Ray cluster of a run, and the node of each lane. The cluster is a short-lived local one, or the one that RAY_ADDRESS names."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group

from sttrl.engine.base import EngineSettings
from sttrl.engine.processes import start_ray
from sttrl.engine.verl.worker_group import SHARE_A_GPU, Role
from sttrl.errors import EngineError

NODE_LABEL = "ray.io/node-id"
"""Ray's label of every node, with the node's id."""


@dataclass(frozen=True)
class Seat:
    """A lane's node: its id and address in Ray, and how many lanes of this run have it."""

    node: str
    address: str
    lanes: int


class Cluster:
    """The cluster that all lanes of this process share. A local cluster starts with the first lane and is shut down after the last."""

    def __init__(self) -> None:
        self.users, self.own, self.turn = 0, False, threading.Lock()
        self.seats: list[Seat] = []
        self.coming, self.counted = 0, threading.Lock()
        self.failure: EngineError | None = None

    def join(self, settings: EngineSettings) -> Seat:
        """Add a lane, and return its node. Raises `EngineError` if Ray does not start, or if the nodes have too little for all lanes."""
        self._count(1)
        with self.turn:
            failure, others = self.failure, self._count(-1)
            if failure is None and not ray.is_initialized():
                try:
                    # Logical CPUs: actors share the cores. One more a lane is for verl's own short task.
                    self.own = start_ray((bundles(settings) + 1) * settings.lanes)
                except EngineError as error:
                    failure, others = error, self._count(0)
            # Lanes that already wait get the same error without a try of their own. A later start tries again.
            self.failure = failure if others else None
            if failure is not None:
                raise failure
            if not self.seats:
                here = ray.get_runtime_context().get_node_id()
                self.seats = spread(settings, sorted(ray.nodes(), key=lambda node: bool(node["NodeID"] != here)))
            self.users += 1
            return self.seats.pop(0)

    def _count(self, more: int) -> int:
        """How many lanes wait for their turn, with ``more`` of them."""
        with self.counted:
            self.coming += more
            return self.coming

    def leave(self) -> None:
        """Remove a lane."""
        with self.turn:
            self.users -= 1
            if self.users == 0:
                self.seats = []
                if self.own and ray.is_initialized():
                    ray.shutdown()


CLUSTER = Cluster()


def spread(settings: EngineSettings, nodes: Sequence[Mapping[str, Any]]) -> list[Seat]:
    """A node for each lane, so that lanes share a node no more than they must; the first of ``nodes``, as Ray lists them, come first.

    Raises `EngineError` where the nodes have less than the lanes reserve: Ray would wait for ever.
    """
    resource = "GPU" if settings.device == "cuda" else "CPU"
    needed = bundles(settings)
    alive = {node["NodeID"]: node for node in nodes if node["Alive"]}
    found = {name: int(node["Resources"].get(resource, 0)) for name, node in alive.items()}
    taken = dict.fromkeys(found, 0)
    for _ in range(settings.lanes):
        free = [name for name in found if (taken[name] + 1) * needed <= found[name]]
        if not free:
            raise EngineError(
                f"{settings.lanes} lanes of {needed} {resource}s need {settings.lanes * needed}, each lane on one node, and Ray has "
                f"{' + '.join(map(str, found.values())) or 0}.",
                "Use fewer --lanes or --learner_ranks, or leave out --separate_ref_gpu and gae.",
            )
        taken[min(free, key=lambda name: (taken[name] + 1) / found[name])] += 1
    return [Seat(name, alive[name]["NodeManagerAddress"], lanes) for name, lanes in taken.items() for _ in range(lanes)]


def bundles(settings: EngineSettings) -> int:
    """Processes or GPUs that a lane reserves, all on one node; on GPU the sampler may share one with the learner."""
    return own_bundles(settings) + settings.learner_ranks * (settings.separate_reference + settings.critic)


def own_bundles(settings: EngineSettings) -> int:
    """What sampler and learner reserve: the learner's ranks have the first, the sampler has the last, or shares the first."""
    return settings.gpus_per_lane if settings.device == "cuda" else settings.learner_ranks * settings.trains + 1


def first_bundle(settings: EngineSettings, role: Role | str) -> int:
    """The bundle of a role's first rank, or of the sampler."""
    own = own_bundles(settings)
    places = {
        "learner": 0,
        "sampler": own - 1,
        "reference": own,
        "critic": own + settings.learner_ranks * settings.separate_reference,
    }
    if settings.device == "cuda" and settings.gpus_per_lane <= settings.learner_ranks:
        places["sampler"] = 0
    return places[role]


def reserve(settings: EngineSettings, seat: Seat) -> PlacementGroup:
    """The lane's resources on its node. Ray gives them as soon as they are free."""
    bundle = {"CPU": SHARE_A_GPU, "GPU": 1} if settings.device == "cuda" else {"CPU": 1}
    count = bundles(settings)
    return placement_group([bundle] * count, strategy="STRICT_PACK", bundle_label_selector=[{NODE_LABEL: seat.node}] * count)
