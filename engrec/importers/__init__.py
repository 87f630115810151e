"""File formats of data sets as distributed, one module each: files in, arguments of `Faces` out."""
