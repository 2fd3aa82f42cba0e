"""Cervical-spine fracture detection on CT: the RSNA 2022 pipeline from DICOM files to submission.csv."""

__version__ = "0.1.0"
