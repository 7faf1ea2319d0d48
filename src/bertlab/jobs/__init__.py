"""What the command line can do: one file a job."""
