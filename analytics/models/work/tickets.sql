-- Tickets, as the trackers had them when they were last read. One row per ticket.
-- The first of the files that this pattern finds is an anchor without rows.
-- With the variable as_of, those that were known then.
FROM read_parquet('lake:work/**/tickets.parquet', union_by_name = true, hive_partitioning = false)
WHERE getvariable('as_of') IS NULL
UNION ALL BY NAME
SELECT * EXCLUDE (seen_at, is_gone)
FROM (
  FROM ticket_versions
  WHERE seen_at < getvariable('as_of')
  QUALIFY row_number() OVER (PARTITION BY ticket_id ORDER BY seen_at DESC) = 1
)
WHERE getvariable('as_of') IS NOT NULL AND NOT is_gone
