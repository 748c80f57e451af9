-- A file's rows with the columns of another file, in its order; those that it has not are empty.
COPY (
  (FROM read_parquet($like, hive_partitioning = false) LIMIT 0)
  UNION ALL BY NAME
  FROM read_parquet($from, hive_partitioning = false)
)
TO $file (FORMAT parquet, COMPRESSION zstd)
