-- How pull requests were taken back and landed again. One row per pull request and revert.
-- @pr_id: Pull request that was taken back or landed again
-- @reverted_by: Pull request, or sha of the commit, that did it
-- @event_at: When that was, UTC
-- @lands: Whether it landed again
-- @method: How it was found: sha (of the commit it was merged with), commit (another one of its commits), pr (its number), title (quoted), files (no word says so: the same files and as many lines, nine parts of ten)
-- @share: The part that was taken back, by lines, up to 1
-- To take back a revert is to land again what it took back, and so on.
WITH RECURSIVE targets AS MATERIALIZED (
  FROM revert_targets
),
walk AS (
  SELECT
    reverted_by, reverted_at, target, method, 1 AS steps,
    is_reland AND target NOT IN (SELECT reverted_by FROM targets) AS lands
  FROM targets
  UNION ALL
  SELECT walk.reverted_by, walk.reverted_at, next.target, walk.method, walk.steps + 1, NOT walk.lands
  FROM walk JOIN targets AS next ON next.reverted_by = walk.target
  WHERE walk.steps < 10 AND next.reverted_at <= walk.reverted_at
),
prs AS MATERIALIZED (
  SELECT pr_id, merged_at, repo, additions, deletions, list_distinct(files) AS files
  FROM pull_requests
  WHERE merged_at IS NOT NULL
),
taken AS (
  SELECT reverted_by, CASE WHEN count(*) = count(additions + deletions) THEN sum(additions + deletions) END AS lines
  FROM walk LEFT JOIN prs ON pr_id = target
  WHERE steps = 1
  GROUP BY reverted_by
),
told AS MATERIALIZED (
  SELECT
    target AS pr_id, reverted_by, reverted_at AS event_at, lands, method,
    CAST(coalesce(CASE WHEN taken.lines > 0 THEN least(1, (additions + deletions) / taken.lines) END, 1) AS DECIMAL(10,9))
      AS share
  FROM walk JOIN taken USING (reverted_by) LEFT JOIN prs ON prs.pr_id = reverted_by
  QUALIFY row_number() OVER (PARTITION BY target, reverted_by ORDER BY steps) = 1
),
alike AS (
  -- Of changes that are smaller than that, others look the same by chance.
  SELECT was.pr_id, again.pr_id AS reverted_by, again.merged_at AS event_at
  FROM (SELECT pr_id, min(event_at) AS since FROM told WHERE NOT lands GROUP BY pr_id) AS reverted
    JOIN (SELECT *, unnest(files) AS file FROM prs WHERE additions + deletions >= 10) AS was USING (pr_id)
    JOIN (SELECT *, unnest(files) AS file FROM prs) AS again ON again.repo = was.repo AND again.file = was.file
  WHERE again.merged_at > since AND again.pr_id NOT IN (SELECT reverted_by FROM targets)
    AND again.additions BETWEEN 0.9 * was.additions AND was.additions / 0.9
    AND again.deletions BETWEEN 0.9 * was.deletions AND was.deletions / 0.9
  GROUP BY was.pr_id, again.pr_id, again.merged_at, was.files, again.files
  HAVING count(*) >= 0.9 * (len(was.files) + len(again.files) - count(*))
)
SELECT pr_id, reverted_by, event_at, lands, method, share FROM told
UNION ALL
SELECT pr_id, reverted_by, event_at, true, 'files', CAST(1 AS DECIMAL(10,9)) FROM alike
