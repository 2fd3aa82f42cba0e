"""Where a dataset in the RSNA layout keeps what, below its root."""

from pathlib import Path

from cspine.data.nifti import SUFFIXES, is_nifti

SPLITS = ("train", "test")


def label_file(root: Path) -> Path:
    return root / "train.csv"


def rows_file(root: Path) -> Path:
    return root / "test.csv"


def box_file(root: Path) -> Path:
    return root / "train_bounding_boxes.csv"


def image_folder(root: Path, split: str) -> Path:
    """The folder that holds one folder of DICOM files, or one NIfTI file, a study."""
    return root / f"{split}_images"


def studies_on_disk(root: Path, split: str) -> list[str]:
    """UIDs of the studies that have images, sorted."""
    return studies_in(image_folder(root, split))


def studies_in(images: Path) -> list[str]:
    """UIDs of the folders `<uid>/` and of the NIfTI files `<uid>.nii`, `<uid>.nii.gz` in a folder, sorted."""
    if not images.is_dir():
        return []
    return sorted({study_uid(path) for path in images.iterdir() if _is_study(path)})


def study_path(images: Path, uid: str) -> Path:
    """Where a study of `images` is: its folder; where there is none its NIfTI file; if neither exists, the folder."""
    files = [images / f"{uid}{suffix}" for suffix in SUFFIXES]
    return next((path for path in (images / uid, *files) if _is_study(path)), images / uid)


def study_uid(path: Path) -> str:
    """The name of a study's folder, or of a NIfTI file without its suffix."""
    return path.name.removesuffix(".gz").removesuffix(".nii") if is_nifti(path) else path.name


def _is_study(path: Path) -> bool:
    return path.is_file() if is_nifti(path) else path.is_dir()


def masks_on_disk(root: Path) -> dict[str, Path]:
    """UID to segmentation file, `.nii` or `.nii.gz`."""
    files = sorted((root / "segmentations").glob("*.nii*"))
    return {study_uid(file): file for file in files}
