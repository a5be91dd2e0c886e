"""Streets: the built-in data set of synthetic traffic scenes, for the demo and for tests.

Road scenes in perspective with people, cars, buses and trucks, near and far, one partly hidden by the other or by trees
and posts, in sun, under clouds, at dusk, at night and in fog. They are easy: a small detector learns them from scratch
in minutes on a CPU. They are good for trying things out and no measure of anything in the real world.

Labels follow COCO: a box is the extent of the visible pixels of an object, which are known exactly. An object of whose
pixels in the image less than a quarter are visible, or whose box has a side below 6 pixels, gets no box. Nothing is
placed of which less than 60 % would lie inside the image.
"""

from yolokd.data.streets.build import build, default_folder, ensure
from yolokd.data.streets.objects import NAMES

__all__ = ["NAMES", "build", "default_folder", "ensure"]
