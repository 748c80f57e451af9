-- All versions of what is said to be taken back that were seen, those that are gone included. One row per version.
-- @reverting: Pull request, or sha of the commit, that says so
-- @repo: Its repository
-- @kind: What it names: sha, pr (number), title (quoted), ticket
-- @reference: The sha, pull request, title or ticket that it names
-- @is_reland: Whether it brings back what was reverted
-- @reverted_at: When it was merged or committed, UTC; NULL when it was not
-- @seen_at: When this version was first seen, UTC: it was the present one from then until the next one of the same key
-- @is_gone: Whether it was found then to be gone; the other columns are those of the version before
FROM read_parquet('lake:work/**/revert_versions.parquet', union_by_name = true, hive_partitioning = false)
