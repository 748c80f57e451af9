-- Teams of users. One row per user.
-- @user_id: User, as gateway keys name them
-- @team_id: Team that the user belongs to
FROM read_parquet('lake:work/**/users.parquet', union_by_name = true, hive_partitioning = false)
