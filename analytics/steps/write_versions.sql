-- All versions of a work table's rows.
COPY (
  FROM read_parquet($stored, union_by_name = true, hive_partitioning = false)
  UNION ALL BY NAME
  SELECT unnest(fields), seen_at, is_gone FROM new_versions
)
TO $file (FORMAT parquet, COMPRESSION zstd)
