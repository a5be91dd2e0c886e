"""Streets: the built-in data set of drawn traffic scenes, for the demo and for tests.

Perspective road scenes with people, bicycles, cars, motorcycles, buses and lorries, in all sizes and half hidden, under
sun, cloud, dusk, night, rain and fog, among clutter that resembles them. It is synthetic: good for trying things out,
no measure of anything in the real world.

Labels follow COCO: a box is the extent of the pixels of an object that can be seen, which are known exactly; an object
of which less than a quarter can be seen, or whose box has a side below 4 pixels, has none. A rider is a person of his
own beside the vehicle's box.
"""

from yolokd.data.streets.build import build, default_folder, ensure
from yolokd.data.streets.traffic import NAMES

__all__ = ["NAMES", "build", "default_folder", "ensure"]
