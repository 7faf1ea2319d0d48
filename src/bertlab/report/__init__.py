"""From a folder of runs to a comparison: reading, arms, statistics, contamination, figures, pages."""
