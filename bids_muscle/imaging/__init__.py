"""Conform, bias field, Dixon, masks: images in, images out."""
