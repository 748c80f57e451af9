-- Names and types of the columns of a file.
SELECT column_name, column_type
FROM (DESCRIBE FROM read_parquet($file, hive_partitioning = false))
