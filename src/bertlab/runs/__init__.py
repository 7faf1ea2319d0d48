"""What a run is on disk: files, identity, records, the machine under it."""
