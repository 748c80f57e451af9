-- How pull requests were taken back and landed again, as pull requests and commits say. One row per pull request and revert.
-- @pr_id: Pull request that was taken back or landed again
-- @reverted_by: Pull request, or sha of the commit, that did it
-- @event_at: When that was, UTC
-- @lands: Whether it landed again
-- @method: How it was found: sha (of the commit it was merged with), commit (another one of its commits), pr (its number), title (quoted)
-- @share: The part that was taken back or landed again, by lines, up to 1
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
  SELECT pr_id, additions + deletions AS lines FROM pull_requests WHERE merged_at IS NOT NULL
),
taken AS (
  SELECT reverted_by, CASE WHEN count(*) = count(lines) THEN sum(lines) END AS lines
  FROM walk LEFT JOIN prs ON pr_id = target
  WHERE steps = 1
  GROUP BY reverted_by
)
SELECT
  target AS pr_id, reverted_by, reverted_at AS event_at, lands, method,
  CAST(coalesce(CASE WHEN taken.lines > 0 THEN least(1, prs.lines / taken.lines) END, 1) AS DECIMAL(10,9))
    AS share
FROM walk JOIN taken USING (reverted_by) LEFT JOIN prs ON prs.pr_id = reverted_by
QUALIFY row_number() OVER (PARTITION BY target, reverted_by ORDER BY steps) = 1
