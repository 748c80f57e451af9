-- Statuses that tickets had. One row per ticket and change of its status.
-- With the variable as_of, those that were known then.
FROM read_parquet('lake:work/**/ticket_statuses.parquet', union_by_name = true, hive_partitioning = false)
WHERE getvariable('as_of') IS NULL
UNION ALL BY NAME
SELECT * EXCLUDE (seen_at, is_gone)
FROM (
  FROM ticket_status_versions
  WHERE seen_at < getvariable('as_of')
  QUALIFY row_number() OVER (PARTITION BY ticket_id, changed_at ORDER BY seen_at DESC) = 1
)
WHERE getvariable('as_of') IS NOT NULL AND NOT is_gone
