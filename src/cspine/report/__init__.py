"""One study as one HTML file: what was found, where, and how sure; and the same as PNG files."""
