"""Where a run's progress goes: one file a tracker."""
