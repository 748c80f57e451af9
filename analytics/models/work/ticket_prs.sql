-- Pull requests that tickets' trackers show with them. One row per ticket and pull request.
-- @ticket_id: Ticket
-- @pr_id: Repository and number of the pull request: acme/shop!46
FROM read_parquet('lake:work/**/ticket_prs.parquet', union_by_name = true, hive_partitioning = false)
