-- Tickets that pull requests name, and where. One row per pull request, ticket and source.
-- With the variable as_of, those that were known then.
FROM read_parquet('lake:work/**/pr_tickets.parquet', union_by_name = true, hive_partitioning = false)
WHERE getvariable('as_of') IS NULL
UNION
SELECT * EXCLUDE (seen_at, is_gone)
FROM (
  FROM pr_ticket_versions
  WHERE seen_at < getvariable('as_of')
  QUALIFY row_number() OVER (PARTITION BY pr_id, ticket_id, source ORDER BY seen_at DESC) = 1
)
WHERE getvariable('as_of') IS NOT NULL AND NOT is_gone
UNION
-- What Linear, say, knows of a pull request is read with its tickets, not with the pull request.
SELECT pr_id, ticket_id, 'tracker' FROM ticket_prs
