-- Commits. One row per commit and repository.
-- @sha: Its hash
-- @repo: Repository
-- @author: Who wrote it, as the forge calls them
-- @committed_at: When it was made, UTC
-- @message_subject: First line of its message
-- @tickets: Tickets that its message names
-- @pr_id: Pull request that it is a part of
FROM read_parquet('lake:work/**/commits.parquet', union_by_name = true, hive_partitioning = false)
