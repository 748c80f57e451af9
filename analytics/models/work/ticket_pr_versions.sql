-- All versions of what trackers show with tickets that were seen, those that are gone included. One row per version.
-- @ticket_id: Ticket
-- @pr_id: Repository and number of the pull request: acme/shop!46
-- @seen_at: When this version was first seen, UTC: it was the present one from then until the next one of the same key
-- @is_gone: Whether it was found then to be gone; the other columns are those of the version before
FROM read_parquet('lake:work/**/ticket_pr_versions.parquet', union_by_name = true, hive_partitioning = false)
