"""Boxes about fractures on slices, by R-FCN (README, the method, phase 4)."""

from cspine.tasks.detector import DetectorTask


class Task(DetectorTask):
    """models/rfcn.py on the slices of tasks/detector.py."""

    model_name = "rfcn"
