"""From photos to crops of faces: detection, alignment, part labels, and the samples that others work on."""
