-- What pull requests and commits say that they take back. One row per such statement.
-- @reverting: Pull request, or sha of the commit, that says so
-- @repo: Its repository
-- @kind: What it names: sha, pr (number), title (quoted), ticket
-- @reference: The sha, pull request, title or ticket that it names
-- @is_reland: Whether it brings back what was reverted
-- @reverted_at: When it was merged or committed, UTC; NULL when it was not
FROM read_parquet('lake:work/**/reverts.parquet', union_by_name = true, hive_partitioning = false)
