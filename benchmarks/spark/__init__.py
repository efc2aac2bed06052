"""asknown on Spark beside plain Spark SQL, on one cluster."""
