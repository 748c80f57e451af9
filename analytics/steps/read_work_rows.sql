-- The rows of a file, each as JSON of the columns that the variable names.
SELECT CAST(to_json(fields) AS VARCHAR)
FROM (SELECT COLUMNS(getvariable('columns')) FROM read_parquet($file, hive_partitioning = false)) AS fields
