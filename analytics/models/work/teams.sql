-- Sizes of teams. One row per team and week.
-- @team_id: Team
-- @week: Monday of the week
-- @builders: Number of people who built something in that team
FROM read_parquet('lake:work/**/teams.parquet', union_by_name = true, hive_partitioning = false)
