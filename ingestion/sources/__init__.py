"""Sources of observations, one module per kind."""
