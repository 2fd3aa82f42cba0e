"""Boxes about fractures on slices, by SSD (README, the method, phase 4)."""

from cspine.tasks.detector import DetectorTask


class Task(DetectorTask):
    """models/ssd.py on the slices of tasks/detector.py."""

    model_name = "ssd"
