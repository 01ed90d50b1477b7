"""Puts model packages together in a temporary folder: the manifest from here, the ONNX file from the shared data."""

from __future__ import annotations

import shutil
from pathlib import Path

from wire import package

MANIFESTS = Path(__file__).resolve().parents[1] / "packages"
# package: (model file, labels file or None), both under shared_data/models
SHARED = {
    "fastestdet-coco": ("fastestdet_coco_352.onnx", "labels/coco80.txt"),
    "mobilenet-imagenet": ("mobilenet_v2_imagenet_qdq.onnx", "labels/imagenet_synset.txt"),
    "mnist": ("mnist.onnx", None),
    "pcb-board": ("pcb_mobilenet_v2_int8.onnx", None),
    "pcb-cnn": ("pcb_simple_cnn_fp32.onnx", None),
    "ppocr-cls": ("ppocr_v2_cls.onnx", None),
    "ultraface": ("ultraface_rfb_320.onnx", None),
    "yolov5u-autofeeder": ("yolov5nu_autofeeder_640_s8_slow.onnx", "labels/autofeeder3.txt"),
    "yolov8n-coco": ("yolov8n_coco_640_u8.onnx", "labels/coco80.txt"),
    "yolox-weeds": ("yolox_nano_weeds_416.onnx", "labels/weeds3.txt"),
    "yunet-faces": ("yunet_n_320.onnx", None),
    "pcb-cnn-int8": ("pcb_simple_cnn_int8.onnx", None),
    "pcb-mobilenet-int8": ("pcb_mobilenet_v2_int8.onnx", None),
}


def assemble(name: str, shared_data: Path, into: Path) -> Path:
    """Return the folder of a complete package, `into/name`, whose model is one of the shared ones."""
    model, labels = SHARED[name]
    folder = into / name
    folder.mkdir(parents=True)
    shutil.copyfile(MANIFESTS / name / "manifest.toml", folder / "manifest.toml")
    shutil.copyfile(shared_data / "models" / model, folder / "model.onnx")
    if labels is not None:
        shutil.copyfile(shared_data / "models" / labels, folder / "labels.txt")
    return folder


def read(name: str, shared_data: Path, into: Path) -> package.Package:
    """Assemble a package and read it."""
    return package.read_folder(assemble(name, shared_data, into))
