"""A procedural cervical spine CT: labels, anatomy, fractures, a scanner, and a writer of the RSNA layout."""
