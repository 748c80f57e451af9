-- How pull requests were taken back and landed again. One row per pull request and revert.
-- @pr_id: Pull request that was taken back or landed again
-- @reverted_by: Pull request, or sha of the commit, that did it
-- @event_at: When that was, UTC
-- @lands: Whether it landed again
-- @method: How it was found: sha (of the commit it was merged with), commit (another one of its commits), pr (its number), title (quoted), files (a guess, no word says so: the same files, and lines to match)
-- @share: The part that was taken back or landed again, by lines, up to 1
WITH told AS MATERIALIZED (
  FROM told_reverts
),
prs AS MATERIALIZED (
  SELECT
    pr_id, merged_at, repo, author, additions, deletions, additions + deletions AS lines, list_distinct(files) AS files,
    coalesce(tickets, []) AS tickets
  FROM pull_requests
    LEFT JOIN (SELECT pr_id, list(ticket_id) AS tickets FROM pr_ticket_weights GROUP BY pr_id) USING (pr_id)
  WHERE merged_at IS NOT NULL
),
silent AS MATERIALIZED (
  -- Of changes that are smaller than that, others look the same by chance.
  SELECT *, unnest(files) AS file FROM prs WHERE lines >= 10 AND pr_id NOT IN (SELECT reverted_by FROM told)
),
inverse AS MATERIALIZED (
  SELECT was.pr_id, back.pr_id AS reverted_by, back.merged_at AS event_at
  FROM silent AS was JOIN silent AS back ON back.repo = was.repo AND back.file = was.file
    AND back.merged_at > was.merged_at AND back.merged_at <= was.merged_at + INTERVAL 90 DAY
    AND abs(back.additions - was.deletions) + abs(back.deletions - was.additions) <= 0.1 * was.lines
  -- What adds about as many lines as it removes looks alike when it is done again and when it is undone.
  WHERE abs(was.additions - was.deletions) >= 0.3 * was.lines
  GROUP BY was.pr_id, back.pr_id, back.merged_at, was.files, back.files
  HAVING count(*) >= 0.9 * greatest(len(was.files), len(back.files))
),
undone AS MATERIALIZED (
  SELECT pr_id, reverted_by, event_at FROM told WHERE NOT lands
  UNION ALL
  FROM inverse WHERE pr_id NOT IN (SELECT reverted_by FROM inverse)
),
alike AS (
  SELECT DISTINCT was.pr_id, again.pr_id AS reverted_by, again.merged_at AS event_at
  FROM undone JOIN silent AS was USING (pr_id) JOIN silent AS again ON again.repo = was.repo AND again.file = was.file
    AND again.merged_at > undone.event_at AND again.merged_at <= undone.event_at + INTERVAL 30 DAY
    AND again.lines BETWEEN 0.5 * was.lines AND 2 * was.lines
    LEFT JOIN told AS landing ON landing.pr_id = was.pr_id AND landing.lands AND landing.share >= 0.9
      AND landing.event_at > undone.event_at AND landing.event_at < again.merged_at
  WHERE landing.pr_id IS NULL AND (again.author = was.author OR list_has_any(again.tickets, was.tickets))
  GROUP BY was.pr_id, again.pr_id, again.merged_at, was.files, again.files
  HAVING count(DISTINCT was.file) >= 0.5 * least(len(was.files), len(again.files))
)
SELECT pr_id, reverted_by, event_at, lands, method, share FROM told
UNION ALL
SELECT pr_id, reverted_by, event_at, false, 'files', CAST(1 AS DECIMAL(10,9))
FROM undone ANTI JOIN told USING (pr_id, reverted_by)
UNION ALL
SELECT pr_id, reverted_by, event_at, true, 'files', CAST(1 AS DECIMAL(10,9)) FROM alike
