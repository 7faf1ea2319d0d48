"""Several processes of one run, several runs in one process."""
