"""Several processes of one run, with all of it or a part each; several runs in one process."""
