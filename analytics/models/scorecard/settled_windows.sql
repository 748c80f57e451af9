-- What windows had come to when they had settled. One row per shown team and window.
-- @team_id: Team; teams that are shown together have no past
-- @window_start: First day of the window, UTC
-- @nd: Normalized deployments, as they were known then
-- @builder_weeks: Weeks that its builders had in the window, as they were known then
-- @seen_at: When that was written down, UTC
SELECT * EXCLUDE (as_of)
FROM read_parquet('lake:scorecard/settled.parquet', hive_partitioning = false) CROSS JOIN as_of
WHERE seen_at < as_of
QUALIFY row_number() OVER (PARTITION BY team_id, window_start ORDER BY seen_at) = 1
