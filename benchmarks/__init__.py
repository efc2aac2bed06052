"""A yardstick for joins that are exact in revisions and in availability."""
