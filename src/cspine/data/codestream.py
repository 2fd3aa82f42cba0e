"""The size of the picture that a compressed frame holds, read from its own first bytes.

A decoder that believes the DICOM header instead gives stray memory for the rows that the frame does not have (dicomsdl)
or ends the process (gdcm). JPEG and JPEG-LS: ITU-T T.81 B.2.2 and T.87 C.2.2; JPEG 2000: ITU-T T.800 A.5.1.
"""

import struct

# So many bytes of a frame hold its size: headers before it are tables and comments.
HEAD_BYTES = 2048
JPEG_START, JPEG_2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
# Start of frame: SOF0 to SOF15 but for DHT, JPG and DAC, which share the range; SOF55 is JPEG-LS.
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def frame_size(head: bytes) -> tuple[int, int] | None:
    """(rows, columns) of the JPEG, JPEG-LS or JPEG 2000 frame with this start; None if it does not tell."""
    if head.startswith(JPEG_START):
        return _jpeg_size(head)
    # A JP2 file puts boxes before its code stream.
    place = head.find(JPEG_2000_START)
    if place < 0 or len(head) < place + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", head, place + 8)
    return bottom - top, right - left


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    place = len(JPEG_START)
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4], "big")
        if marker in FRAME_MARKERS:
            rows, columns = struct.unpack_from(">2H", head, place + 5)
            return rows, columns
        # A marker may be preceded by any number of fill bytes FF.
        place += 1 if marker == 0xFF else 2 + length
    return None
