"""Two sides measured in one job, interleaved: revisions, environments or settings."""
