"""Token shards: how they are built, found, mended, read and removed."""
