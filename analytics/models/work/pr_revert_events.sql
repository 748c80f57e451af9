-- How pull requests were taken back and landed again. One row per pull request and revert.
-- @pr_id: Pull request that was taken back or landed again
-- @reverted_by: Pull request, or sha of the commit, that did it
-- @event_at: When that was, UTC
-- @lands: Whether it landed again
-- @method: How it was found: sha (of the commit it was merged with), commit (another one of its commits), pr (its number), title (quoted), files (no word says so: the same files and as many lines, nine parts of ten)
-- @share: The part that was taken back, by lines, up to 1
-- To take back a revert is to land again what it took back, and so on.
WITH RECURSIVE walk AS (
  SELECT
    reverted_by, reverted_at, target, method, 1 AS steps,
    is_reland AND target NOT IN (SELECT reverted_by FROM revert_targets) AS lands
  FROM revert_targets
  UNION ALL
  SELECT walk.reverted_by, walk.reverted_at, next.target, walk.method, walk.steps + 1, NOT walk.lands
  FROM walk JOIN revert_targets AS next ON next.reverted_by = walk.target
  WHERE walk.steps < 10 AND next.reverted_at <= walk.reverted_at
),
sizes AS (
  SELECT pr_id, merged_at, repo, files, additions + deletions AS lines FROM pull_requests
),
taken AS (
  SELECT reverted_by, sum(lines) AS lines, count(lines) = count(*) AS is_known
  FROM walk LEFT JOIN sizes ON pr_id = target
  WHERE steps = 1
  GROUP BY reverted_by
),
told AS (
  SELECT
    target AS pr_id, reverted_by, reverted_at AS event_at, lands, method,
    CASE WHEN is_known AND taken.lines > 0 THEN least(1, sizes.lines / taken.lines) END AS share
  FROM walk JOIN taken USING (reverted_by) LEFT JOIN sizes ON sizes.pr_id = reverted_by
  QUALIFY row_number() OVER (PARTITION BY target, reverted_by ORDER BY steps) = 1
),
alike AS (
  SELECT DISTINCT ON (was.pr_id, again.pr_id) was.pr_id, again.pr_id AS reverted_by, again.merged_at AS event_at
  FROM told
    JOIN sizes AS was USING (pr_id)
    JOIN sizes AS again ON again.repo = was.repo AND again.merged_at > told.event_at
  WHERE NOT told.lands
    AND was.lines >= 10 AND again.lines BETWEEN 0.9 * was.lines AND was.lines / 0.9
    AND len(list_intersect(was.files, again.files)) >= 0.9 * len(list_distinct(was.files || again.files))
    AND len(was.files) > 0
    AND again.pr_id NOT IN (SELECT reverted_by FROM revert_targets)
)
SELECT pr_id, reverted_by, event_at, lands, method, CAST(coalesce(share, 1) AS DECIMAL(10,9)) AS share FROM told
UNION ALL
SELECT pr_id, reverted_by, event_at, true, 'files', CAST(1 AS DECIMAL(10,9)) FROM alike
