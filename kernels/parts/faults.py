"""What can be wrong with a study, the weights, the disk or the time, and a run of the kernel with each of it.

Every run has the same few studies, the bystanders, and one more, the victim, which is a copy of the first of them. What
a fault does to the victim must not show in the rows of the bystanders.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from parts.sandbox import Ran, Sandbox, run_kernel
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from cspine.anatomy import TARGETS
from cspine.paths import RSNA_NAME

WEIGHTS_NAME = "cspine-fracture-weights"
VICTIM = "1.2.826.0.1.3680043.victim"
BYSTANDERS = 3
LONGEST_STUDY = 1082
SPARE_S = 15.0
# Reads of a file: by four threads ahead, for its header, for its pixels.
READS = 1 / 4 + 1 + 1


@dataclass
class Tree:
    """A dataset and a bundle to spoil: copies, or links to files that are replaced and never written into."""

    folder: Path
    uids: list[str]
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    end_at: str | None = None

    @property
    def data(self) -> Path:
        return self.folder / RSNA_NAME

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS_NAME

    @property
    def victim(self) -> Path:
        return self.data / "test_images" / VICTIM

    @property
    def slices(self) -> list[Path]:
        """The victim's files in the order of their numbers."""
        return sorted(self.victim.iterdir(), key=lambda file: int(file.stem))

    @property
    def asked(self) -> list[str]:
        return [f"{uid}_{target}" for uid in self.uids for target in TARGETS]

    def preload(self, **variables: str) -> None:
        """Have the kernel run on the disk of faulty_disk.c."""
        library = self.folder / "faulty_disk.so"
        source = Path(__file__).with_name("faulty_disk.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        self.environment |= {"LD_PRELOAD": str(library), **variables}


@dataclass(frozen=True)
class Fault:
    """`spoil` is given the tree and the seconds of the fault-free run.

    `victim` says what becomes of the victim: predicted, prior, same (as without the fault), or any. `compiler` is True
    where faulty_disk.c is needed.
    """

    name: str
    spoil: Callable[[Tree, float], None]
    victim: str = "any"
    bystanders: bool = True  # whether they are to have the rows of the fault-free run
    compiler: bool = False


def make_tree(folder: Path, data: Path, weights: Path, uids: Sequence[str]) -> Tree:
    """The bystanders' images, the victim's, test.csv and the bundle."""
    tree = Tree(folder, [*uids, VICTIM])
    for uid in tree.uids:
        source = data / "test_images" / (uids[0] if uid == VICTIM else uid)
        shutil.copytree(source, tree.data / "test_images" / uid, copy_function=_link)
    shutil.copytree(weights, tree.weights, copy_function=_link)
    write_rows(tree.data / "test.csv", tree.uids)
    return tree


def write_rows(file: Path, uids: Sequence[str], targets: Sequence[str] = TARGETS) -> None:
    """A test.csv that asks for these studies."""
    lines = [f"{uid}_{target},{uid},{target}" for uid in uids for target in targets]
    file.write_text("\n".join(["row_id,StudyInstanceUID,prediction_type", *lines, ""]))


def run_in(tree: Tree, kernel: Path, folder: Path) -> Ran:
    sandbox = Sandbox(folder, {WEIGHTS_NAME: tree.weights, RSNA_NAME: tree.data})
    return run_kernel(kernel, sandbox, tree.asked, tree.options, tree.environment, tree.end_at)


def replace_file(file: Path, content: bytes) -> None:
    """Never write into a file that may be a link to another's."""
    file.unlink()
    file.write_bytes(content)


def _corrupt_slice(tree: Tree, _seconds: float) -> None:
    file = tree.slices[len(tree.slices) // 2]
    replace_file(file, file.read_bytes()[: file.stat().st_size // 2])


def _empty(tree: Tree, _seconds: float) -> None:
    for file in tree.slices:
        file.unlink()


def _longest(tree: Tree, _seconds: float) -> None:
    """The victim's slices over again, at a quarter of their size, until there are as many as RSNA's longest has."""
    known = [pydicom.dcmread(file) for file in tree.slices]
    _empty(tree, 0)
    top, bottom = (float(known[end].ImagePositionPatient[2]) for end in (0, -1))
    for number, place in enumerate(np.linspace(0, len(known) - 1, LONGEST_STUDY)):
        dataset = known[round(place)]
        share = number / (LONGEST_STUDY - 1)
        where = [*dataset.ImagePositionPatient[:2], round(top + share * (bottom - top), 4)]
        _write(tree.victim / f"{number + 1}.dcm", dataset, _stored(dataset)[::4, ::4], where, step=4)


def _odd_size(tree: Tree, _seconds: float) -> None:
    """Every second slice, as 512 rows of 519 columns."""
    files = tree.slices
    known = [pydicom.dcmread(file) for file in files[::2]]
    _empty(tree, 0)
    for number, dataset in enumerate(known):
        stored = _stored(dataset)
        rows, columns = (
            np.linspace(0, side - 1, size).round().astype(int)
            for side, size in zip(stored.shape, (512, 519), strict=True)
        )
        step = stored.shape[0] / 512
        _write(tree.victim / f"{number + 1}.dcm", dataset, stored[rows][:, columns], dataset.ImagePositionPatient, step)


def _stored(dataset: Dataset) -> np.ndarray:
    return dataset.pixel_array


def _write(file: Path, dataset: Dataset, stored: np.ndarray, position: Sequence[float], step: float) -> None:
    made = Dataset()
    for name in (
        "SOPClassUID",
        "SOPInstanceUID",
        "Modality",
        "SeriesInstanceUID",
        "ImageOrientationPatient",
        "SliceThickness",
    ):
        if name in dataset:
            setattr(made, name, getattr(dataset, name))
    for name in ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"):
        setattr(made, name, getattr(dataset, name))
    made.PixelRepresentation, made.InstanceNumber = dataset.PixelRepresentation, int(file.stem)
    made.RescaleSlope, made.RescaleIntercept = dataset.RescaleSlope, dataset.RescaleIntercept
    made.Rows, made.Columns = stored.shape
    made.PixelSpacing = [float(spacing) * step for spacing in dataset.PixelSpacing]
    made.ImagePositionPatient = [float(value) for value in position]
    made.PixelData = np.ascontiguousarray(stored).tobytes()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    made.save_as(file, enforce_file_format=True)


def _other_way(tree: Tree, _seconds: float) -> None:
    """The file numbers run the other way along z."""
    files = tree.slices
    aside = [file.rename(file.with_suffix(".aside")) for file in files]
    for file, name in zip(aside, reversed(files), strict=True):
        file.rename(name)


def _crash(tree: Tree, _seconds: float) -> None:
    tree.preload(CSPINE_CRASH_PATH=f"{VICTIM}/{tree.slices[2].name}")


def _hang(tree: Tree, seconds: float) -> None:
    tree.preload(CSPINE_HANG_PATH=f"{VICTIM}/{tree.slices[2].name}")
    # Enough for a process to start, which the fault-free run did too.
    tree.options += ["--study-seconds", f"{seconds + 5:.0f}"]


def _slow(tree: Tree, seconds: float) -> None:
    """A disk on which the victim takes longer than the kernel may, which has just the time that the others need."""
    limit_s = 1.5 * seconds + SPARE_S
    delay_ms = max(1, round(1000 * 2 * limit_s / READS / len(tree.slices)))
    tree.preload(CSPINE_SLOW_PATH=f"{VICTIM}/", CSPINE_SLOW_MS=str(delay_ms))
    tree.options += ["--hours", f"{limit_s / 3600:.5f}"]


def _terminate(tree: Tree, _seconds: float) -> None:
    tree.end_at = f"1 of {len(tree.uids)} studies"


def _a_weight(tree: Tree) -> Path:
    return sorted(tree.weights.glob("*.safetensors"))[0]


def _missing_weight(tree: Tree, _seconds: float) -> None:
    _a_weight(tree).unlink()


def _altered_weight(tree: Tree, _seconds: float) -> None:
    content = bytearray(_a_weight(tree).read_bytes())
    content[-1] ^= 1
    replace_file(_a_weight(tree), bytes(content))


FAULTS = (
    Fault("a corrupt slice", _corrupt_slice, "predicted"),
    Fault("an empty study", _empty, "prior"),
    Fault("1,082 slices", _longest, "predicted"),
    Fault("512 x 519", _odd_size, "predicted"),
    Fault("z the other way", _other_way, "same"),
    Fault("a file that segfaults", _crash, "prior", compiler=True),
    Fault("a file that hangs", _hang, "prior", compiler=True),
    Fault("a slow disk, little time", _slow, "prior", compiler=True),
    Fault("SIGTERM in the middle", _terminate),
    Fault("a missing weight file", _missing_weight, "predicted", bystanders=False),
    Fault("a wrong sha256", _altered_weight, "predicted", bystanders=False),
)


def _link(source: str, target: str) -> None:
    """A link where the file system allows one, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
