-- Projects whose tickets are known. One row per project.
-- @project: What comes before the number of its tickets: PAY, acme/shop
-- @synced_at: When its tickets were last read, all that were there, UTC; NULL when some had to be left out
-- With the variable as_of, those of which a ticket had been seen by then, as read just then: each sync would be a version.
FROM read_parquet('lake:work/**/projects.parquet', union_by_name = true, hive_partitioning = false)
WHERE getvariable('as_of') IS NULL
UNION ALL BY NAME
SELECT project, least(synced_at, getvariable('as_of')) AS synced_at
FROM read_parquet('lake:work/**/projects.parquet', union_by_name = true, hive_partitioning = false)
WHERE getvariable('as_of') IS NOT NULL AND project IN (
  SELECT regexp_extract(ticket_id, '^(.+)[-#][0-9]+$', 1) FROM ticket_versions WHERE seen_at < getvariable('as_of')
)
