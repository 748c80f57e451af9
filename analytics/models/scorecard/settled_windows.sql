-- What windows had come to when they had settled. One row per shown group and window.
-- @team_id: Team, or (other): teams with too few builders, put together
-- @window_start: First day of the window, UTC
-- @nd: Normalized deployments, as they were known then
-- @seen_at: When that was written down, UTC
FROM read_parquet('lake:scorecard/settled.parquet', hive_partitioning = false)
