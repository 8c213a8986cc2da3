"""Numbers out of images and a label map."""
