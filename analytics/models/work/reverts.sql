-- What pull requests and commits say that they take back. One row per such statement.
-- With the variable as_of, those that were known then.
FROM read_parquet('lake:work/**/reverts.parquet', union_by_name = true, hive_partitioning = false)
WHERE getvariable('as_of') IS NULL
UNION ALL BY NAME
SELECT * EXCLUDE (seen_at, is_gone)
FROM (
  FROM revert_versions
  WHERE seen_at < getvariable('as_of')
  QUALIFY row_number() OVER (PARTITION BY reverting, kind, reference ORDER BY seen_at DESC) = 1
)
WHERE getvariable('as_of') IS NOT NULL AND NOT is_gone
