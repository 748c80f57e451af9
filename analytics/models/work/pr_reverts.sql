-- Pull requests that were reverted. One row per reverted pull request.
-- @pr_id: Repository and number: acme/shop!46
-- @reverted_at: Since when it is or was taken back, UTC: when it was first reverted after it had last landed
-- @reverted_by: Pull request, or sha of the commit, that did it
-- @method: How that was found: stated (imported as such), sha (of the commit it was merged with), commit (another one of its commits), pr (its number), title (quoted)
-- @share: The part of it that was reverted, by lines, up to 1
-- @landed_again_at: When it landed again after that, UTC; NULL when it has not
-- @landed_again_by: Pull request, or sha of the commit, that did it
WITH found AS MATERIALIZED (
  SELECT found.*, prs.reverted_at AS stated_at
  FROM pr_revert_events AS found LEFT JOIN pull_requests AS prs USING (pr_id)
),
events AS MATERIALIZED (
  SELECT pr_id, event_at, lands, reverted_by, method, share
  FROM found
  WHERE stated_at IS NULL OR (lands AND event_at > stated_at)
  UNION ALL
  SELECT pr_id, reverted_at, false, reverted_by, 'stated', 1 FROM pull_requests WHERE reverted_at IS NOT NULL
),
last_out AS (
  SELECT pr_id, max(event_at) AS last_at FROM events WHERE NOT lands GROUP BY pr_id
),
landings AS (
  SELECT
    pr_id,
    max(event_at) FILTER (lands AND event_at < last_at) AS before_at,
    min(event_at) FILTER (lands AND event_at > last_at) AS landed_again_at,
    arg_min(reverted_by, event_at) FILTER (lands AND event_at > last_at) AS landed_again_by
  FROM events JOIN last_out USING (pr_id)
  GROUP BY pr_id
)
SELECT
  pr_id,
  min(event_at) AS reverted_at,
  arg_min(events.reverted_by, event_at) AS reverted_by,
  arg_min(method, event_at) AS method,
  CAST(least(1, sum(share)) AS DECIMAL(10,9)) AS share,
  any_value(landed_again_at) AS landed_again_at,
  any_value(landed_again_by) AS landed_again_by
FROM events JOIN landings USING (pr_id)
WHERE NOT lands AND event_at > coalesce(before_at, TIMESTAMP '-infinity')
GROUP BY pr_id
