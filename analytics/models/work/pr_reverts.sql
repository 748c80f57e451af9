-- Pull requests that were reverted. One row per reverted pull request.
-- @pr_id: Repository and number: acme/shop!46
-- @reverted_at: Since when it is or was taken back, UTC: when it was first reverted after it had last landed
-- @reverted_by: Pull request, or sha of the commit, that did it
-- @method: How that was found: stated (imported as such), sha (of the commit it was merged with), commit (another one of its commits), pr (its number), title (quoted)
-- @share: The part of it that was reverted, by lines, up to 1, less what small landings after that brought back
-- @landed_again_at: When it landed again after that, at least nine parts of ten, UTC; NULL when it has not
-- @landed_again_by: Pull request, or sha of the commit, that did it
-- @undone_by: All that ever took it back, or landed it again
-- Guesses count for nothing here: neither is blamed nor made whole what no word tells of.
WITH found AS MATERIALIZED (
  SELECT found.*, prs.reverted_at AS stated_at
  FROM told_reverts AS found LEFT JOIN pull_requests AS prs USING (pr_id)
),
events AS MATERIALIZED (
  SELECT pr_id, event_at, lands, lands AND share >= 0.9 AS is_whole, reverted_by, method, share
  FROM found
  WHERE stated_at IS NULL OR (lands AND event_at > stated_at)
  UNION ALL
  SELECT pr_id, reverted_at, false, false, reverted_by, 'stated', 1 FROM pull_requests WHERE reverted_at IS NOT NULL
),
last_out AS (
  SELECT pr_id, max(event_at) AS last_at FROM events WHERE NOT lands GROUP BY pr_id
),
landings AS (
  SELECT
    pr_id, last_at,
    max(event_at) FILTER (is_whole AND event_at < last_at) AS before_at,
    min({event_at: event_at, reverted_by: reverted_by}) FILTER (is_whole AND event_at > last_at) AS again,
    list(DISTINCT reverted_by) FILTER (reverted_by IS NOT NULL) AS undone_by
  FROM events JOIN last_out USING (pr_id)
  GROUP BY pr_id, last_at
),
reverts AS (
  SELECT
    pr_id,
    min({event_at: event_at, reverted_by: reverted_by, method: method}) FILTER (NOT lands) AS first,
    least(1, sum(share) FILTER (NOT lands)) - coalesce(sum(share) FILTER (lands AND NOT is_whole AND event_at > last_at), 0)
      AS share,
    any_value(again) AS again,
    any_value(undone_by) AS undone_by
  FROM events JOIN landings USING (pr_id)
  WHERE event_at > coalesce(before_at, TIMESTAMP '-infinity')
  GROUP BY pr_id
)
SELECT
  pr_id,
  first.event_at AS reverted_at,
  first.reverted_by AS reverted_by,
  first.method AS method,
  CAST(greatest(0, share) AS DECIMAL(10,9)) AS share,
  again.event_at AS landed_again_at,
  again.reverted_by AS landed_again_by,
  undone_by
FROM reverts
