-- Who is who across trackers, forges and gateway. One row per name in a source.
-- @source: Tracker or forge: github, gitlab, jira, linear, git
-- @source_user: Name, account or verified e-mail address there
-- @user_id: User, as gateway keys name them
FROM read_parquet('lake:work/**/identities.parquet', union_by_name = true, hive_partitioning = false)
