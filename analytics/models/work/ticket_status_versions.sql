-- All versions of statuses that tickets had that were seen, those that are gone included. One row per version.
-- @ticket_id: Ticket
-- @changed_at: From when it had this status, UTC
-- @status: Status, in the tracker's word
-- @status_category: What the status means: todo, in_progress, done
-- @changed_by: Who gave it this status, as the tracker calls them
-- @seen_at: When this version was first seen, UTC: it was the present one from then until the next one of the same key
-- @is_gone: Whether it was found then to be gone; the other columns are those of the version before
FROM read_parquet('lake:work/**/ticket_status_versions.parquet', union_by_name = true, hive_partitioning = false)
