"""People and two-wheelers of Streets, built from lines and balls.

A person is a skeleton in a pose (walking, standing, sitting, riding) that is dressed in lines of the limbs' widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from yolokd.data.streets.draw import Body, Colour, Face, Point
from yolokd.data.streets.shapes import PAINTS, TYRE, Rng, Shape, dark, disc, pick

CLOTHES: Sequence[Colour] = (
    (40, 36, 34), (60, 55, 50), (120, 80, 50), (170, 110, 60), (50, 50, 160), (40, 90, 190), (60, 140, 70),
    (210, 210, 212), (150, 150, 150), (90, 150, 210), (60, 200, 220), (140, 60, 120), (90, 110, 130), (45, 60, 85),
)  # fmt: skip
SKINS: Sequence[Colour] = ((180, 205, 235), (140, 175, 220), (105, 140, 190), (70, 100, 150), (45, 65, 105))
HAIR: Sequence[Colour] = ((25, 22, 20), (30, 45, 70), (50, 90, 130), (130, 175, 210), (160, 160, 160))

Pose = Mapping[str, Sequence[Point]]  # legs, arms: hip to foot, shoulder to hand; spine: hip to neck; head: its middle


def _limb(start: Point, angle: float, bend: float, lengths: tuple[float, float]) -> list[Point]:
    """Two bones hanging from a joint: swung forward by `angle`, the second bent back by `bend` (radians)."""
    x, y, z = start
    first, second = lengths
    joint = (x, y - first * float(np.cos(angle)), z + first * float(np.sin(angle)))
    end = angle - bend
    return [start, joint, (x, joint[1] - second * float(np.cos(end)), joint[2] + second * float(np.sin(end)))]


def upright(rng: Rng, *, still: bool) -> Pose:
    """Standing, or somewhere in a stride."""
    phase = float(rng.uniform(0, 2 * np.pi))
    swing = float(rng.uniform(0.02, 0.12) if still else rng.uniform(0.25, 0.5)) * float(np.sin(phase))
    lift = 0.05 if still else 0.4
    pose: dict[str, Sequence[Point]] = {"spine": [(0, 0.93, 0), (0, 1.44, 0.02)], "head": [(0, 1.63, 0.03)]}
    for s, name in ((-1, "left"), (1, "right")):
        bend = lift * max(0.0, -s * float(np.cos(phase))) + 0.04
        pose[f"{name} leg"] = _limb((s * 0.09, 0.91, 0), s * swing, bend, (0.44, 0.45))
        pose[f"{name} arm"] = _limb((s * 0.20, 1.41, 0), -s * swing * 0.9, -0.25, (0.30, 0.28))
    return pose


def seated(saddle: float, lean: float, hands: Point, feet: Sequence[tuple[float, float]]) -> Pose:
    """On a saddle or a bench at the height `saddle`: trunk leaning forward, hands and feet at given places (y, z)."""
    neck = (0.0, saddle + 0.52 * float(np.cos(lean)), 0.52 * float(np.sin(lean)) - 0.05)
    pose: dict[str, Sequence[Point]] = {
        "spine": [(0, saddle + 0.03, -0.05), neck],
        "head": [(0, neck[1] + 0.19, neck[2] + 0.06)],
    }
    for s, name, (y, z) in zip((-1, 1), ("left", "right"), feet, strict=True):
        knee = (s * 0.13, (saddle + y) / 2 + 0.2, max(z, 0.1) + 0.22)
        pose[f"{name} leg"] = [(s * 0.1, saddle, 0), knee, (s * 0.11, y, z)]
        elbow = (s * 0.26, (neck[1] + hands[1]) / 2 - 0.06, (neck[2] + hands[2]) / 2 - 0.02)
        pose[f"{name} arm"] = [(s * 0.19, neck[1] - 0.04, neck[2]), elbow, (s * hands[0], hands[1], hands[2])]
    return pose


def dress(rng: Rng, pose: Pose, scale: float, *, helmet: bool = False) -> Body:
    """A body in the pose: shoes, trousers or skirt, top, arms, head and hair, now and then a bag."""
    top, low, skin, hair = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKINS), pick(rng, HAIR)
    sleeves, build = float(rng.choice([0.0, 1.0], p=[0.25, 0.75])), float(rng.uniform(0.88, 1.2)) * scale

    def line(points: Sequence[Point], colour: Colour, width: float) -> Face:
        return Face([(x * scale, y * scale, z * scale) for x, y, z in points], colour, width=width * build)

    faces = []
    for name in ("left", "right"):
        hip, knee, foot = pose[f"{name} leg"]
        toe = (foot[0], foot[1] - 0.02, foot[2] + 0.11)
        shoe, shin = line([foot, toe], (32, 32, 36), 0.10), line([knee, foot], low, 0.115)
        faces.append(_group(line([hip, knee], low, 0.165), shin, shoe))
        shoulder, elbow, hand = pose[f"{name} arm"]
        fore = line([elbow, hand], top if sleeves else skin, 0.085)
        faces.append(_group(line([shoulder, elbow], dark(top, 0.9), 0.11), fore, line([hand], skin, 0.10)))
    (hx, hy, hz), (nx, ny, nz) = pose["spine"]
    sides = [line([(hx + s, hy + 0.02, hz), (nx + s * 1.6, ny - 0.07, nz)], top, 0.20) for s in (-0.075, 0.075)]
    trunk = [line([(hx, hy, hz), (nx, ny - 0.04, nz)], top, 0.27), *sides]
    if not helmet and rng.random() < 0.2:  # a skirt or a long coat
        trunk.append(line([(hx, hy + 0.05, hz), (hx, hy - 0.33, hz)], pick(rng, (top, low)), 0.36))
    faces.append(_group(*trunk))
    (x, y, z) = pose["head"][0]
    cap = line([(x, y + 0.05, z - 0.03)], pick(rng, PAINTS) if helmet else hair, 0.25 if helmet else 0.225)
    face = line([(x, y - 0.02, z + 0.03)], skin, 0.20)
    faces.append(_group(line([(nx, ny, nz), (x, y, z)], skin, 0.11), cap, face))
    if not helmet and rng.random() < 0.3:  # a rucksack, or a bag in the hand
        hand = pose["right arm"][2]
        bag = [(nx, ny - 0.12, nz - 0.17), (hx, hy + 0.15, hz - 0.17)] if rng.random() < 0.5 else [hand, _below(hand)]
        faces.append(line(bag, pick(rng, CLOTHES), 0.26))
    return Body(faces)


def _group(first: Face, *rest: Face) -> Face:
    return first._replace(details=rest)


def _below(hand: Point) -> Point:
    return hand[0] + 0.03, hand[1] - 0.25, hand[2]


def person(rng: Rng, *, still: bool = False, umbrella: bool = False) -> Shape:
    """Somebody on foot, 1.0 m (a child) to 1.95 m tall."""
    height = float(rng.uniform(1.0, 1.4) if rng.random() < 0.12 else rng.normal(1.71, 0.08))
    bodies = [dress(rng, upright(rng, still=still), height / 1.75)]
    if umbrella:
        colour, y = pick(rng, CLOTHES), height + 0.12
        rim = [(0.55 * float(np.cos(a)), y, 0.55 * float(np.sin(a))) for a in np.linspace(0, 2 * np.pi, 8, False)]
        tip = (0.0, y + 0.28, 0.0)
        shades = (dark(colour, 0.85), colour)
        cloth = [Face([rim[i], rim[(i + 1) % 8], tip], shades[i % 2], both=True) for i in range(8)]
        bodies.append(Body([Face([(0.12, 1.0, 0.1), (0, y + 0.25, 0)], (60, 60, 60), width=0.03), *cloth], layer=1))
    return Shape(bodies, 0.3, 0.35, height)


def sitter(rng: Rng) -> Shape:
    """Somebody on a bench."""
    pose = seated(0.5, float(rng.uniform(-0.1, 0.3)), (0.12, 0.62, 0.35), [(0.08, 0.5), (0.08, 0.45)])
    return Shape([dress(rng, pose, float(rng.normal(1.0, 0.04)))], 0.3, 0.4, 1.3)


def _ring(z: float, y: float, radius: float, width: float) -> Face:
    """A tyre in the plane across x."""
    return disc(0, y, z, radius, TYRE, 14)._replace(width=width, closed=True)


def bicycle(rng: Rng) -> Shape:
    """A bicycle without its rider."""
    colour, radius, base = pick(rng, PAINTS), 0.34, float(rng.uniform(0.98, 1.08)) / 2
    hub, head, seat, crank = radius, (0.0, 0.90, base - 0.2), (0.0, 0.88, -0.2), (0.0, 0.30, -0.05)
    rear, front = (0.0, hub, -base), (0.0, hub, base)

    def tube(points: Sequence[Point], width: float = 0.045, shade: Colour = colour) -> Face:
        return Face(points, shade, width=width)

    wheels = [_ring(z, radius, radius, 0.05) for z in (-base, base)]
    frame = [
        tube([rear, seat]), tube([rear, crank]), tube([crank, seat]), tube([seat, head]), tube([crank, head]),
        tube([head, front]), tube([(-0.28, 1.02, base - 0.28), (0, 1.0, base - 0.2), (0.28, 1.02, base - 0.28)], 0.04),
        tube([(0, 0.94, -0.35), (0, 0.95, -0.12)], 0.11, (30, 28, 28)),
        tube([(-0.12, 0.2, -0.05), (0.12, 0.4, -0.05)], 0.04, (50, 50, 50)),
    ]  # fmt: skip
    if rng.random() < 0.2:
        frame.append(tube([(-0.1, 0.78, base), (0.1, 0.78, base)], 0.28, (60, 100, 150)))  # a basket
    return Shape([Body([*wheels, *frame])], 0.28, base + radius, 1.05)


def cyclist(rng: Rng) -> Shape:
    """Who rides the bicycle."""
    up = float(rng.uniform(-0.16, 0.16))
    pose = seated(0.97, float(rng.uniform(0.25, 0.6)), (0.26, 1.04, 0.26), [(0.28 + up, 0.05), (0.28 - up, 0.05)])
    return Shape([dress(rng, pose, 1.0, helmet=rng.random() < 0.4)], 0.3, 0.5, 1.75)


def motorcycle(rng: Rng, on: bool) -> Shape:
    """A motorcycle or a scooter, without its rider."""
    colour, radius, base = pick(rng, PAINTS), float(rng.uniform(0.26, 0.33)), 0.68
    scooter = rng.random() < 0.4
    wheels = [_ring(z, radius, radius * 0.85, 0.13) for z in (-base, base)]
    red: Colour = (60, 50, 255) if on else (45, 40, 170)
    white: Colour = (235, 250, 255) if on else (205, 208, 208)
    parts = [
        Face([(0, 0.45, -0.25), (0, 0.45, 0.2)], (60, 58, 56), width=0.34),  # engine
        Face([(0.16, 0.33, 0.1), (0.16, 0.36, -0.7)], (150, 150, 150), width=0.09),  # exhaust
        Face([(0, radius, base), (0, 0.95, base - 0.33)], (110, 110, 110), width=0.12),  # fork
        Face([(0, 0.72, -0.75), (0, 0.78, -0.1)], (36, 34, 34), width=0.2),  # seat
        Face([(0, 0.76, -0.02), (0, 0.82, 0.3)], colour, width=0.32),  # tank
        Face([(0, 0.62, -0.85), (0, 0.6, -0.5)], colour, width=0.2),
        Face([(-0.36, 1.03, 0.25), (0, 0.98, 0.4), (0.36, 1.03, 0.25)], (50, 50, 50), width=0.05),
        Face([(0, 0.85, base - 0.2)], white, width=0.2, glow=0.3 * on),
        Face([(0, 0.68, -0.95)], red, width=0.13, glow=0.2 * on),
    ]
    shield = Face([(-0.2, 0.4, 0.45), (0.2, 0.4, 0.45), (0.22, 0.95, 0.42), (-0.22, 0.95, 0.42)], colour, both=True)
    return Shape([Body([*wheels, *parts, *([shield] if scooter else ())])], 0.36, base + radius, 1.1)


def motorcyclist(rng: Rng) -> Shape:
    """Who rides the motorcycle."""
    pose = seated(0.82, float(rng.uniform(0.1, 0.45)), (0.33, 1.05, 0.3), [(0.32, 0.05), (0.32, 0.05)])
    return Shape([dress(rng, pose, 1.04, helmet=True)], 0.36, 0.5, 1.6)
