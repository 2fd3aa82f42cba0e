"""A reading as one HTML file that asks for nothing else: its own viewer, style and data inside.

Whatever came from a file's header or name is escaped, and the content-security policy lets run only the viewer, by its
hash, and nothing reach a network.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from cspine.lesions import CENTRE, GREATEST, LEAST
from cspine.paths import atomic
from cspine.report.encode import VERTEX_STEPS, code_hu, hu_to_codes, pack, pack_surface
from cspine.report.reader import Reading

HERE = Path(__file__).parent
# Levels on the planes; on the surfaces a probability goes from bone to fracture.
COLOURS = ((230, 25, 75), (245, 130, 49), (255, 225, 25), (60, 180, 75), (66, 212, 244), (67, 99, 216), (240, 50, 230))
BONE, FRACTURE = np.array([226, 214, 188]), np.array([222, 32, 32])
OPACITY = {"levels": 0.25, "heat": 0.6}
FROM_THE_SIDE = 0.6
Colour = tuple[int, int, int]


def write_page(reading: Reading, file: Path, title: str | None = None) -> Path:
    """Write the page; the file. `title` stands in the place of the study's name."""
    with atomic(file) as temporary:
        temporary.write_text(page_html(reading, title or reading.name), encoding="utf-8")
    return file


def page_html(reading: Reading, title: str) -> str:
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("viewer.css", "viewer.js"))
    filled = {
        "STYLE_HASH": _hash(style),
        "SCRIPT_HASH": _hash(script),
        "TITLE": escape(title),
        "VERDICT": _verdict(reading),
        "CONTROLS": _controls(reading),
        "TABLES": _level_table(reading) + _lesion_table(reading),
        "NOTES": _notes(reading),
        "DATA": _data(reading),
        "STYLE": style,
        "SCRIPT": script,
    }
    parts = (HERE / "page.html").read_text(encoding="utf-8").split("@")
    # Filled in one pass, so that nothing filled in is taken for a place to fill.
    return "".join(filled[part] if place % 2 else part for place, part in enumerate(parts))


def probability_colour(probability: float) -> Colour:
    """From bone to red: how likely a level is fractured."""
    red, green, blue = np.rint(BONE + probability * (FRACTURE - BONE)).astype(int).tolist()
    return red, green, blue


def level_colours(reading: Reading) -> list[Colour]:
    """Of the seven surfaces: by probability, without heads the levels' own."""
    known = [level.probability for level in reading.levels]
    return [COLOURS[place] if value is None else probability_colour(value) for place, value in enumerate(known)]


def _data(reading: Reading) -> str:
    affine, shape = reading.frame.affine, reading.frame.shape
    corners = np.array(np.meshgrid(*((0, size - 1) for size in shape[::-1]))).reshape(3, -1)
    surfaces = [one for one in reading.surfaces if one is not None]
    shown = np.concatenate([one.vertices[:, ::-1] for one in surfaces]).T if surfaces else corners
    places = affine[:3, :3] @ shown + affine[:3, 3:]
    middle, extent = (places.min(axis=1) + places.max(axis=1)) / 2, float(np.ptp(places, axis=1).max())
    values = {
        "shape": list(shape[::-1]),
        "affine": affine[:3].round(6).tolist(),
        "inverse": np.linalg.inv(affine)[:3].round(6).tolist(),
        "hu": code_hu(),
        "colours": COLOURS,
        "vertexSteps": VERTEX_STEPS,
        "start": _start(reading),
        "yaw": FROM_THE_SIDE,
        "middle": middle.round(2).tolist(),
        "extent": round(extent, 2),
        "levels": [
            {"name": level.name, "centre": level.centre_mm, "colour": colour, "surface": surface is not None}
            for level, colour, surface in zip(reading.levels, level_colours(reading), reading.surfaces, strict=True)
        ],
        "lesions": [_lesion(row, reading) for row in reading.lesions.to_dict("records")],
    }
    blobs = {"volume": pack(hu_to_codes(reading.volume_hu)), "labels": pack(reading.labels)}
    if reading.heat is not None:
        blobs["heat"] = pack(np.rint(255 * reading.heat).astype(np.uint8))
    for place, surface in enumerate(reading.surfaces):
        if surface is not None:
            blobs[f"surface-{place}"] = pack_surface(surface)
    text = json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")
    lines = [f'<script type="application/json" id="data">{text}</script>']
    lines += [f'<script type="text/plain" id="{name}">{blob}</script>' for name, blob in blobs.items()]
    return "\n".join(lines)


def _lesion(row: dict[str, Any], reading: Reading) -> dict[str, Any]:
    low, high = ([float(row[name]) for name in ends] for ends in (LEAST, GREATEST))
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3)
    voxels = reading.frame.to_index(corners)[:, ::-1]
    return {
        "centre": [round(float(row[name]), 2) for name in CENTRE],
        "extent": [low, high],
        "voxels": [voxels.min(axis=0).round(2).tolist(), voxels.max(axis=0).round(2).tolist()],
    }


def _start(reading: Reading) -> list[int]:
    """The voxel, x, y, z, to open at: the surest lesion, else the likeliest level that is found, else the middle."""
    found = [level for level in reading.levels if level.centre_mm is not None]
    if len(reading.lesions):
        place = reading.lesions[list(CENTRE)].iloc[0].to_numpy(float)
    elif found:
        place = np.array(max(found, key=lambda level: level.probability or 0.0).centre_mm)
    else:
        return [size // 2 for size in reading.frame.shape[::-1]]
    index = np.rint(reading.frame.to_index(place)).astype(int)
    return index.clip(0, np.array(reading.frame.shape) - 1)[::-1].tolist()


def _verdict(reading: Reading) -> str:
    if reading.patient is None:
        return "No fracture head is trained; the levels as found."
    if all(level.centre_mm is None for level in reading.levels):
        return "No level was found: <b>this scan is not judged</b>; the probabilities are those of such studies."
    probability, threshold = reading.patient
    word = "a fracture" if probability >= threshold else "no fracture"
    sure = f"probability {probability:.2f}, decided at {threshold:.2f}"
    return f"The patient: <b>{word}</b> ({sure}). A computer's reading, for research; it diagnoses nothing."


def _controls(reading: Reading) -> str:
    names = ["levels", *([] if reading.heat is None else ["heat"])]
    sliders = [
        f'<label>{name} <input id="{name}-opacity" type="range" min="0" max="1" step="0.01" value="{OPACITY[name]}">'
        "</label>"
        for name in names
    ]
    box = '<label><input id="lesions-shown" type="checkbox" checked> lesions</label>' if len(reading.lesions) else ""
    return "\n".join([*sliders, box])


def _level_table(reading: Reading) -> str:
    rows = []
    for place, level in enumerate(reading.levels):
        colour = ",".join(map(str, COLOURS[place]))
        # Colours by SVG attributes: the policy allows no style attribute.
        swatch = f'<svg class="swatch" viewBox="0 0 1 1"><rect width="1" height="1" fill="rgb({colour})"/></svg>'
        go = f' data-go="level-{place}"' if level.centre_mm is not None else ""
        name = f'<button type="button">{level.name}</button>' if go else level.name
        shown = _numbers(level.probability, level.threshold)
        kind = ' class="fracture"' if level.decision == "fracture" else ""
        cells = f'<td>{swatch}{name}</td>{shown}<td class="decision">{level.decision}</td><td>{escape(level.note)}</td>'
        rows.append(f"<tr{go}{kind}>{cells}</tr>")
    header = ("level", "#probability", "#threshold", "decision", "reliability")
    return f"<div><h2>Levels</h2>{_table(header, rows)}</div>"


def _lesion_table(reading: Reading) -> str:
    if not len(reading.lesions):
        return ""
    rows = []
    for place, row in enumerate(reading.lesions.to_dict("records")):
        where = ", ".join(f"{row[name]:.0f}" for name in CENTRE)
        size = " x ".join(f"{row[high] - row[low]:.0f}" for low, high in zip(LEAST, GREATEST, strict=True))
        cells = [f'<button type="button">lesion {place + 1}</button>', escape(str(row["level"])) or "\u2013"]
        text = "".join(f"<td>{cell}</td>" for cell in cells) + f'<td class="number">{row["score"]:.2f}</td>'
        text += f'<td class="number">{row["slices"]}</td><td>{where}</td><td>{size}</td>'
        rows.append(f'<tr data-go="lesion-{place}">{text}</tr>')
    header = ("lesion", "level", "#score", "#slices", "centre, mm (LPS)", "size, mm")
    return f"<div><h2>Lesions</h2>{_table(header, rows)}</div>"


def _table(header: Sequence[str], rows: Sequence[str]) -> str:
    cells = [f'<th class="number">{name[1:]}</th>' if name[0] == "#" else f"<th>{name}</th>" for name in header]
    return f"<table><tr>{''.join(cells)}</tr>{''.join(rows)}</table>"


def _numbers(*values: float | None) -> str:
    return "".join(f'<td class="number">{chr(0x2013) if value is None else f"{value:.3f}"}</td>' for value in values)


def _notes(reading: Reading) -> str:
    frame = reading.frame
    size = " x ".join(str(size) for size in frame.shape[::-1])
    words = [
        *reading.notes,
        f"Shown at {frame.voxel_mm:.2f} mm ({size} voxels), not at the scan's own {_spacing(reading)} mm.",
    ]
    if reading.heat is not None:
        words.append(
            "Heat is where the head looks in the most suspicious levels (what it says of parts of the images, or the "
            "gradient of what it says of all), scaled by their probability; it is no outline of a fracture."
        )
    return "".join(f'<p class="note">{escape(word)}</p>' for word in words)


def _spacing(reading: Reading) -> str:
    y, x = reading.frame.geometry.pixel_spacing_mm
    return f"{x:.2f} x {y:.2f} x {reading.frame.geometry.spacing_mm:.2f}"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
