-- Commits that are known to be a pull request's. One row per commit and repository.
-- @repo: Repository
-- @sha: Hash of the commit
-- @pr_id: Pull request: of several, the one that was merged with it
-- @is_merge: Whether the pull request was merged with it
-- @title: First line of its message, without the numbers of pull requests behind it
-- Forges name a merge commit for pull requests that were not merged, too.
WITH found AS (
  SELECT repo, merge_commit AS sha, pr_id, true AS is_merge, NULL AS message_subject
  FROM pull_requests
  WHERE merged_at IS NOT NULL AND merge_commit IS NOT NULL
  UNION ALL
  SELECT repo, sha, pr_id, false, message_subject FROM commits WHERE pr_id IS NOT NULL
)
SELECT
  repo, sha,
  coalesce(min(pr_id) FILTER (is_merge), min(pr_id)) AS pr_id,
  bool_or(is_merge) AS is_merge,
  regexp_replace(any_value(message_subject), '([ \t]*\(#[0-9]+\))+$', '') AS title
FROM found
GROUP BY repo, sha
