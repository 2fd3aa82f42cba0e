"""Could a model cheat on the phantom? How well features that show no bone tell fractured patients from others.

Each study gives its slice count, extent, sampling, way of storing, file sizes, mean and spread of HU, and noise level.
A model that sees only these must stay at chance for patient_overall.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pydicom
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cspine.anatomy import OVERALL
from cspine.data.dicom import load_study
from cspine.data.layout import label_file
from cspine.metrics import auc, auc_interval
from cspine.phantom.writer import Order, make_dataset
from cspine.tables import STUDY, read_labels

BODY_HU = -300


def shortcuts_table(root: Path | None, studies: int, seed: int, processes: int) -> str:
    """The table of the features' AUC on the first studies of a phantom.

    Without a `root` a phantom is made for it: of a small matrix, with spacing as in the competition's data.
    """
    if root is not None:
        return _table_of(root, studies, processes)
    with TemporaryDirectory() as folder:
        made = Path(folder) / "phantom"
        make_dataset(made, Order(studies=studies, test_studies=0, seed=seed, matrix=64), processes)
        return _table_of(made, studies, processes)


def _table_of(root: Path, studies: int, processes: int) -> str:
    labels = read_labels(label_file(root)).set_index(STUDY)[OVERALL].head(studies)
    return auc_table(read_features(root, list(labels.index), processes), labels.to_numpy())


def read_features(root: Path, uids: list[str], processes: int) -> pd.DataFrame:
    """The features of each study, a row a study in the order given."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return pd.DataFrame(list(pool.map(partial(study_features, root / "train_images"), uids, chunksize=4)))


def study_features(images: Path, uid: str) -> dict[str, float]:
    """What can be known of a study without looking at a bone."""
    folder = images / uid
    files = list(folder.iterdir())
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    study = load_study(folder)
    hu = study.volume.astype(np.float32)
    body = hu > BODY_HU
    # What a slice differs from the mean of its neighbours by, where the body is: mostly noise.
    rough = (hu[1:-1] - 0.5 * (hu[:-2] + hu[2:]))[body[1:-1]]
    sizes = [file.stat().st_size for file in files]
    return {
        "slices": len(hu),
        "extent_mm": len(hu) * study.geometry.spacing_mm,
        "spacing_mm": study.geometry.spacing_mm,
        "thickness_mm": float(header.SliceThickness),
        "pixel_mm": study.geometry.pixel_spacing_mm[0],
        "rows": hu.shape[1],
        "columns": hu.shape[2],
        "first_number": int(study.geometry.file_numbers.min()),
        "ascending": float(study.geometry.file_numbers[0] > study.geometry.file_numbers[-1]),
        "signed": float(header.PixelRepresentation),
        "intercept": float(header.RescaleIntercept),
        "padding": float(header.get("PixelPaddingValue", 0)),
        "inverted": float(header.PhotometricInterpretation == "MONOCHROME1"),
        "syntax": float(str(header.file_meta.TransferSyntaxUID).rsplit(".", 1)[-1]),
        "total_bytes": sum(sizes),
        "bytes_per_pixel": float(np.mean(sizes)) / hu[0].size,
        "mean_hu": float(hu.mean()),
        "sd_hu": float(hu.std()),
        "body_share": float(body.mean()),
        "body_mean_hu": float(hu[body].mean()),
        "bone_share": float((hu > 300).mean()),
        "noise_hu": float(np.percentile(abs(rough), 50)),
    }


def auc_table(features: pd.DataFrame, labels: np.ndarray) -> str:
    """AUC of each feature alone and of two models over all of them, cross-validated, with 95 % intervals."""
    lines = [f"{len(labels)} studies, {int(labels.sum())} with a fracture; an AUC of 0.5 is chance"]
    lines += [f"{name:18}{with_interval(labels, features[name].to_numpy())}" for name in features]
    for name, scores in model_scores(features, labels).items():
        lines.append(f"{name:18}{with_interval(labels, scores)}")
    return "\n".join(lines)


def model_scores(features: pd.DataFrame, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Out-of-fold probabilities of a linear model and of boosted trees."""
    models = {
        "all, linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "all, trees": GradientBoostingClassifier(
            n_estimators=60, max_leaf_nodes=8, min_samples_leaf=20, max_features=0.5, random_state=0
        ),
    }
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return {
        name: cross_val_predict(model, features, labels, cv=folds, method="predict_proba")[:, 1]
        for name, model in models.items()
    }


def with_interval(labels: np.ndarray, scores: np.ndarray) -> str:
    """AUC and its 95 % interval."""
    low, high = auc_interval(labels, scores)
    return f"{auc(labels, scores):.3f} ({low:.3f} to {high:.3f})"
