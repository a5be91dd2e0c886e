from __future__ import annotations

import numpy as np
import pytest

from yolokd.data.streets import NAMES, objects, scene
from yolokd.data.streets.build import draw_image
from yolokd.data.streets.drawing import Array, Camera, Canvas, placed
from yolokd.data.streets.light import KINDS, draw_light
from yolokd.data.streets.scene import MIN_SIDE, MIN_VISIBLE, SCALE, Item, Rendered, draw_items, is_inside

SIZE = (192, 128)
CAMERA = Camera(width=384, height=256, focal=380, u0=192, v0=110, x0=0, eye=1.6)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def item(name: str, x: float, z: float, direction: tuple[float, float] = (0.0, 1.0)) -> Item:
    return Item(scene.MODELS[name](rng(3)), scene.LABELS.get(name), x, z, direction, ())


def canvas(camera: Camera = CAMERA) -> Canvas:
    return Canvas(camera, draw_light(rng()).shading)


def mask_alone(camera: Camera, thing: Item) -> Array:
    """The pixels of one thing when nothing else is drawn, whether it gets a box or not."""
    alone = canvas(camera)
    alone.draw_faces(placed(thing.model, thing.x, thing.z, thing.direction), number=1)
    return np.equal(alone.numbers, 1)


def expected_rows(camera: Camera, items: list[Item]) -> list[tuple[float, ...]]:
    """Classes and boxes by the rule, from masks of things that are each drawn alone."""
    masks = [mask_alone(camera, thing) for thing in items]
    rows = []
    for i, thing in enumerate(items):
        hidden = np.any(masks[i + 1 :], axis=0) if i + 1 < len(items) else np.zeros_like(masks[i])
        visible = masks[i] & ~hidden
        if thing.label is None or not visible.any() or visible.sum() < MIN_VISIBLE * masks[i].sum():
            continue
        y, x = np.nonzero(visible)
        box = np.array((x.min(), y.min(), x.max() + 1, y.max() + 1)) / SCALE
        if min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE:
            rows.append((thing.label, *box.tolist()))
    return rows


@pytest.fixture(scope="module")
def images() -> list[Rendered]:
    return [draw_image("train", index, size=SIZE) for index in range(100)]


@pytest.mark.parametrize("seed", range(8))
def test_draw_items__boxes_are_the_visible_parts_of_masks_drawn_alone(seed: int) -> None:
    stream = rng(seed)
    camera = scene.draw_camera(stream, SIZE)
    items = scene.furnish(scene.draw_street(stream), camera, stream)
    classes, boxes = draw_items(canvas(camera), items)
    rows = [(label, *box) for label, box in zip(classes.tolist(), boxes.tolist(), strict=True)]
    assert rows == expected_rows(camera, items)
    assert rows


def test_draw_items__an_object_behind_another_keeps_the_box_of_what_can_be_seen() -> None:
    bus, car = item("bus", 0.0, 16.0, (1.0, 0.0)), item("car", -2.5, 8.0)
    (alone,) = draw_items(canvas(), [bus])[1].tolist()
    classes, boxes = draw_items(canvas(), [bus, car])
    assert classes.tolist() == [NAMES.index("bus"), NAMES.index("car")]
    assert (boxes[0] == alone).all()  # it reaches beyond the car on every side
    wall = item("building", -7.0, 10.0)
    classes, boxes = draw_items(canvas(), [bus, wall])
    assert classes.tolist() == [NAMES.index("bus")]
    assert boxes[0, 0] > alone[0] + 5
    assert boxes[0, 2] == alone[2]


def test_draw_items__what_is_hidden_or_tiny_has_no_box() -> None:
    person, bus = item("person", 0.0, 12.0), item("bus", 0.0, 9.0, (1.0, 0.0))
    assert draw_items(canvas(), [person])[0].tolist() == [NAMES.index("person")]
    assert draw_items(canvas(), [person, bus])[0].tolist() == [NAMES.index("bus")]
    assert draw_items(canvas(), [item("person", 0.0, 60.0)])[0].tolist() == []
    assert draw_items(canvas(), [])[1].shape == (0, 4)


def test_is_inside__refuses_what_lies_mostly_beyond_the_border() -> None:
    border = CAMERA.width / 2 * 12.0 / CAMERA.focal  # x at z = 12
    assert is_inside(item("car", border - 1.0, 12.0), CAMERA)
    assert not is_inside(item("car", border + 1.0, 12.0), CAMERA)
    assert not is_inside(item("car", border + 20.0, 12.0), CAMERA)


@pytest.mark.parametrize("seed", range(20))
def test_furnish__nothing_is_drawn_before_what_stands_behind_it(seed: int) -> None:
    """Along any line of sight on the ground, a thing drawn earlier is met later."""
    stream = rng(seed)
    camera = scene.draw_camera(stream, SIZE)
    items = scene.furnish(scene.draw_street(stream), camera, stream)
    for slope in np.linspace(-0.7, 0.7, 57).tolist():
        met = [(depths[0], i) for i, thing in enumerate(items) if (depths := crossings(thing, camera.x0, slope))]
        order = [i for _, i in sorted(met)]
        assert order == sorted(order, reverse=True)


def crossings(thing: Item, x0: float, slope: float) -> list[float]:
    """Depths z at which the line x = x0 + slope · z crosses a footprint."""
    depths = []
    corners = thing.corners
    for (xa, _, za), (xb, _, zb) in zip(corners, np.roll(corners, -1, 0), strict=True):
        a, b = xa - x0 - slope * za, xb - x0 - slope * zb
        if a * b < 0:
            depths.append(float(za + (zb - za) * a / (a - b)))
    return sorted(depth for depth in depths if depth > 0)


def test_render__images_and_labels_are_well_formed_and_differ(images: list[Rendered]) -> None:
    for drawn in images:
        assert drawn.image.shape == (SIZE[1], SIZE[0], 3)
        assert drawn.image.dtype == np.uint8
        assert len(drawn.classes) == len(drawn.boxes_xyxy_px)
        assert (drawn.boxes_xyxy_px >= 0).all()
        assert (drawn.boxes_xyxy_px <= (*SIZE, *SIZE)).all()
        assert (drawn.boxes_xyxy_px[:, 2:] - drawn.boxes_xyxy_px[:, :2] >= MIN_SIDE).all()
    assert len({drawn.image.tobytes() for drawn in images}) == len(images)


def test_render__every_class_is_common_and_scale_varies(images: list[Rendered]) -> None:
    classes = np.concatenate([drawn.classes for drawn in images])
    boxes = np.concatenate([drawn.boxes_xyxy_px for drawn in images])
    shares = np.bincount(classes, minlength=len(NAMES)) / len(classes)
    assert shares.min() > 0.05
    heights = (boxes[:, 3] - boxes[:, 1]) / SIZE[1]
    for label in range(len(NAMES)):
        low, high = np.quantile(heights[classes == label], (0.05, 0.95))
        assert high > 2 * low


def test_render__many_objects_are_partly_hidden() -> None:
    shares = []
    for seed in range(25):
        stream = rng(seed)
        camera = scene.draw_camera(stream, SIZE)
        items = scene.furnish(scene.draw_street(stream), camera, stream)
        masks = [mask_alone(camera, thing) for thing in items]
        for i, thing in enumerate(items):
            if thing.label is not None and masks[i].any():
                hidden = np.any([np.zeros_like(masks[i]), *masks[i + 1 :]], axis=0)
                shares.append(float((masks[i] & ~hidden).sum() / masks[i].sum()))
    visible = np.array(shares)
    assert 0.15 < (visible < 0.9).mean() < 0.75
    assert (visible < MIN_VISIBLE).any()
    assert ((visible >= MIN_VISIBLE) & (visible < 0.75)).mean() > 0.05


def test_render__light_varies(images: list[Rendered]) -> None:
    brightness = {kind: [d.image.mean() for d in images if d.light == kind] for kind in KINDS}
    assert all(len(values) >= 3 for values in brightness.values())
    assert np.mean(brightness["night"]) < np.mean(brightness["dusk"]) < np.mean(brightness["sun"])
    contrast = {kind: np.mean([d.image.std() for d in images if d.light == kind]) for kind in ("sun", "fog")}
    assert contrast["fog"] < 0.8 * contrast["sun"]


@pytest.mark.parametrize("name", [*objects.OBJECTS, *objects.CLUTTER])
def test_objects__stay_within_their_footprint_and_height(name: str) -> None:
    for seed in range(20):
        model = scene.MODELS[name](rng(seed))
        points = np.concatenate([face.points for part in model.parts for face in part.faces])
        slack = 0.75 if name in {"tree", "post"} else 0.05  # a crown, an arm
        assert np.abs(points[:, 0]).max() <= model.half_width + slack
        assert np.abs(points[:, 2]).max() <= model.half_length + slack
        assert points[:, 1].min() >= 0
        assert points[:, 1].max() <= model.height
