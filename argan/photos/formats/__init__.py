"""The picture formats that are read, one module each; `argan.photos.photo_file` is the only caller."""
