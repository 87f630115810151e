"""Other people's file formats, one file each: raw data in, the arrays of a prepared data set out."""
