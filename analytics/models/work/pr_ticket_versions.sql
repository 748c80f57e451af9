-- All versions of what pull requests name that were seen, those that are gone included. One row per version.
-- @pr_id: Repository and number of the pull request: acme/shop!46
-- @ticket_id: Ticket that it names
-- @source: Where, in order of trust: tracker (a link there), title, branch, body_close (closes #45), commit, body_mention
-- @seen_at: When this version was first seen, UTC: it was the present one from then until the next one of the same key
-- @is_gone: Whether it was found then to be gone; the other columns are those of the version before
FROM read_parquet('lake:work/**/pr_ticket_versions.parquet', union_by_name = true, hive_partitioning = false)
