"""Photographs from files: opening, cropping, storing; collections, duplicates, quality; published datasets in `sources`."""
