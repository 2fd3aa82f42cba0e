"""Where a dataset in the RSNA layout keeps what, below its root."""

from pathlib import Path

SPLITS = ("train", "test")


def label_file(root: Path) -> Path:
    return root / "train.csv"


def rows_file(root: Path) -> Path:
    return root / "test.csv"


def box_file(root: Path) -> Path:
    return root / "train_bounding_boxes.csv"


def image_folder(root: Path, split: str) -> Path:
    """The folder that holds one folder of DICOM files a study."""
    return root / f"{split}_images"


def studies_on_disk(root: Path, split: str) -> list[str]:
    """UIDs of the studies that have a folder of images, sorted."""
    folder = image_folder(root, split)
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def masks_on_disk(root: Path) -> dict[str, Path]:
    """UID to segmentation file, `.nii` or `.nii.gz`."""
    files = sorted((root / "segmentations").glob("*.nii*"))
    return {file.name.removesuffix(".gz").removesuffix(".nii"): file for file in files}
