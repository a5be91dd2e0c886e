"""Ultralytics' names that the rest of the package uses: the one place to mend when Ultralytics moves one."""

from __future__ import annotations

from ultralytics import __version__
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import LetterBox, Mosaic
from ultralytics.data.build import InfiniteDataLoader, build_yolo_dataset
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import VID_FORMATS, get_split_fraction
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules.block import AAttn, Attention
from ultralytics.nn.modules.conv import Conv
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils import ASSETS, LOGGER, RANK, TQDM
from ultralytics.utils.loss import DFLoss, E2ELoss
from ultralytics.utils.metrics import ap_per_class, batch_probiou, bbox_iou
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import make_divisible, scale_boxes, xywh2xyxy, xyxyxyxy2xywhr
from ultralytics.utils.patches import imread
from ultralytics.utils.tal import RotatedTaskAlignedAssigner, TaskAlignedAssigner, bbox2dist, rbox2dist
from ultralytics.utils.torch_utils import (
    autocast,
    copy_attr,
    get_cpu_info,
    get_flops,
    get_num_params,
    parse_device,
    select_device,
    strip_optimizer,
    unwrap_model,
)

ULTRALYTICS_VERSION = str(__version__)

__all__ = [
    "ASSETS",
    "LOGGER",
    "RANK",
    "TQDM",
    "ULTRALYTICS_VERSION",
    "VID_FORMATS",
    "AAttn",
    "Attention",
    "Conv",
    "DFLoss",
    "DetectionModel",
    "DetectionValidator",
    "DistillationModel",
    "E2ELoss",
    "InfiniteDataLoader",
    "LetterBox",
    "Mosaic",
    "OBBValidator",
    "PoseValidator",
    "RotatedTaskAlignedAssigner",
    "SegmentationValidator",
    "TaskAlignedAssigner",
    "YOLODataset",
    "ap_per_class",
    "autocast",
    "batch_probiou",
    "bbox2dist",
    "bbox_iou",
    "build_yolo_dataset",
    "copy_attr",
    "get_cfg",
    "get_cpu_info",
    "get_flops",
    "get_num_params",
    "get_split_fraction",
    "imread",
    "make_divisible",
    "non_max_suppression",
    "parse_device",
    "rbox2dist",
    "scale_boxes",
    "select_device",
    "strip_optimizer",
    "unwrap_model",
    "xywh2xyxy",
    "xyxyxyxy2xywhr",
    "yaml_model_load",
]
