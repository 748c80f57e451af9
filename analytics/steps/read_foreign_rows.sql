-- The rows of a file, each as JSON.
SELECT CAST(to_json(fields) AS VARCHAR) FROM read_parquet($file, hive_partitioning = false) AS fields
