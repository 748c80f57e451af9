-- Statuses that tickets had. One row per ticket and change of its status.
-- @ticket_id: Ticket
-- @changed_at: From when it had this status, UTC
-- @status: Status, in the tracker's word
-- @status_category: What the status means: todo, in_progress, done
-- @changed_by: Who gave it this status, as the tracker calls them
FROM read_parquet('lake:work/**/ticket_statuses.parquet', union_by_name = true, hive_partitioning = false)
