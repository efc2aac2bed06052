"""Joins on a Spark cluster: the same kernel on the executors, over Arrow."""
