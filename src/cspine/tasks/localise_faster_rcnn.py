"""Boxes about fractures on slices, by Faster R-CNN (README, the method, phase 4)."""

from cspine.tasks.detector import DetectorTask


class Task(DetectorTask):
    """models/faster_rcnn.py on the slices of tasks/detector.py."""

    model_name = "faster_rcnn"
