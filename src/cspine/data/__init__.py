"""From a folder of DICOM slices to cached pixels, and everything that is checked on the way."""
