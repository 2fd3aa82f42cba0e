"""The seven cervical levels, the order of the targets and their weights in the metric, written nowhere else."""

LEVELS = ("C1", "C2", "C3", "C4", "C5", "C6", "C7")
OVERALL = "patient_overall"
TARGETS = (OVERALL, *LEVELS)

# Weights of the competition's log loss: a positive costs twice a negative, the patient as much as the seven levels.
POSITIVE_WEIGHTS = (14.0, *(2.0,) * 7)
NEGATIVE_WEIGHTS = (7.0, *(1.0,) * 7)
COLUMN_WEIGHTS = (7.0, *(1.0,) * 7)

# Labels in the segmentation files: 1-7 are C1-C7; 8-19 are T1-T12, which no stage here uses.
MASK_LABELS = range(1, 8)
