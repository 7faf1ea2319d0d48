"""From a config to a finished run: assembly, first weights, the loop, evaluation."""
